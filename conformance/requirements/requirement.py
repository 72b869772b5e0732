"""The numbered requirements (requirements.toml), read and validated.

A requirement's tier is how binding it is: *specified* by a specification, a paper, a checkpoint's format or a reference
implementation; *implied* by what this project's interface promises; *unspecified*: engines differ legitimately, so it is
recorded and never judged. Its level is what an engine must offer to be judged: L0 text, L1 log-probabilities, L2 logits,
L3 taps within the model, L4 injection into it.
"""

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("requirements.toml")
PREFIXES = """
    NORM ROPE ATTN MASK WIND CACHE BATCH MLP MOE EMBD HEAD RESI CONF WGHT SAFE GGUF QUNT TOKN DETO STRM STOP SAMP DRAW PENA
    LOGP TMPL CHAT GENR EOSX LIMT ERRS NUMR VRFY CLIX WIRE
    """.split()  # noqa: SIM905
TIERS = ("specified", "implied", "unspecified")
LEVELS = ("L0", "L1", "L2", "L3", "L4")
AREAS = """
    normalisation rope attention mlp embedding head residual moe kv_cache batching weights quantization tokenization
    chat_template sampling stop eos logprobs generation streaming security numerics
    """.split()  # noqa: SIM905
ID = re.compile(r"([A-Z]+)-[0-9]{3}")
SOURCES = ("https://", "arXiv ", "contract: ")
"""How a source begins; "contract: " names the part of this project's interface that states it."""


@dataclass(frozen=True)
class Requirement:
    """One sentence that a correct engine fulfils, with its source."""

    id: str
    text: str
    tier: str
    level: str
    area: str
    source: str

    @property
    def is_judged(self) -> bool:
        """Whether a check may fail an engine for it."""
        return self.tier != "unspecified"


class RequirementsBroken(ValueError):
    """The file of requirements is invalid."""


def load_requirements(path: Path = FILE) -> dict[str, Requirement]:
    """All requirements by id, in the order of the file; raises RequirementsBroken for the first malformed one."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise RequirementsBroken(f"{path} is not TOML: {error}") from error
    if set(entries) != {"requirement"} or not isinstance(entries["requirement"], list):
        raise RequirementsBroken(f"{path} holds {sorted(entries)}; expected [[requirement]] tables only")
    found: dict[str, Requirement] = {}
    for entry in entries["requirement"]:
        requirement = read_entry(entry)
        if requirement.id in found:
            raise RequirementsBroken(f"{requirement.id} occurs twice; expected every id once")
        found[requirement.id] = requirement
    return found


def read_entry(entry: dict[str, Any]) -> Requirement:
    """One table of the file, validated."""
    names = {field.name for field in fields(Requirement)}
    where = str(entry.get("id", entry))[:80]
    if set(entry) != names or not all(isinstance(value, str) for value in entry.values()):
        raise RequirementsBroken(f"{where}: has {sorted(entry)}; expected texts for {sorted(names)}")
    requirement = Requirement(**entry)
    match = ID.fullmatch(requirement.id)
    if not match or match[1] not in PREFIXES:
        raise RequirementsBroken(f"{where}: expected an id such as ROPE-003, beginning with one of {', '.join(PREFIXES)}")
    for name, known in (("tier", TIERS), ("level", LEVELS), ("area", AREAS)):
        if getattr(requirement, name) not in known:
            raise RequirementsBroken(f"{where}: {name} is {getattr(requirement, name)!r}; expected one of {', '.join(known)}")
    if not is_one_sentence(requirement.text):
        raise RequirementsBroken(f"{where}: expected one sentence of 20 to 300 characters: {requirement.text!r}")
    if not requirement.source.startswith(SOURCES) or len(requirement.source) < 12:
        raise RequirementsBroken(f"{where}: its source {requirement.source!r} begins with none of {', '.join(SOURCES)}")
    return requirement


def is_one_sentence(text: str) -> bool:
    """Whether a text begins with a capital or a sign, ends with a full stop, and has no second sentence."""
    return 20 <= len(text) <= 300 and text == text.strip() and text.endswith(".") and not re.search(r"[a-z)]{2}\. [A-Z]", text)
