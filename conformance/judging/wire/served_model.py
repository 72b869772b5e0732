"""A checkpoint to serve when no other is given: a family's tiny model with a tokenizer that GGUF can hold.

Its tokens are single printable characters, so the text of any tokens is whole and can be counted by hand. The logit of the
begin token is always 0, so that no greedy answer has one in its middle: servers differ in how they show that.
"""

import json
import string
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from conformance.models.fixtures import fixture_config, write_fixture
from conformance.models.small_model import TEMPLATE
from nanollama.model.dtypes import DTYPES

SPECIAL = ("<s>", "</s>")
SPACE, NEWLINE = "Ġ", "Ċ"  # how byte-level vocabularies write them
LETTERS = string.ascii_letters + string.digits + string.punctuation + SPACE + NEWLINE


def write_served_model(folder: Path, stored: str = "float64", **changes: Any) -> Path:
    """The checkpoint as a folder, with weights of the dtype `stored`; `changes` are those of config.json."""
    vocabulary = {token: id for id, token in enumerate([*SPECIAL, *LETTERS])}
    ends = {"vocab_size": len(vocabulary), "bos_token_id": 0, "eos_token_id": 1, "dtype": stored}
    write_fixture(folder, fixture_config("LlamaForCausalLM", **ends, **changes))
    weights = {name: weight.to(DTYPES[stored]) for name, weight in load_file(folder / "model.safetensors").items()}
    weights["lm_head.weight"][0] = 0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    tokenizer: Any = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "add_bos_token": True, "tokenizer_class": "GPT2Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder
