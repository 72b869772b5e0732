"""One engine on one subject: every value that it shows, compared with the truth.

Modules on true inputs (L4) are judged each by itself. Taps of the whole model (L3) are off from the first fault on, so only the
first locates it. Logits (L2) cover all parts at once.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from conformance.engines.engine import Broken, Engine, Prompt, Taps, Unsupported
from conformance.engines.subject import Subject, with_masks
from conformance.judging.bars import Bars, Reading
from conformance.judging.evidence.coverage import PIECES, WHOLE_PROMPTS, covered
from conformance.judging.evidence.observations import Observation, Pair, State, explained
from conformance.judging.evidence.tokens import choices
from conformance.numerics.floor import kind_of
from conformance.requirements.results import Point

ALSO_SHOWN = {"block": ("stream",), "logits": ("whole",)}  # further kinds that such taps show if the whole model ran
LOGITS = frozenset(["whole"])
KindsShown = Callable[[str], Sequence[str]]  # the kinds that a tap of this kind shows


class CaseComparison:
    """An engine that has a subject loaded."""

    def __init__(self, engine: Engine, subject: Subject, bars: Bars) -> None:
        self.engine, self.subject, self.bars = engine, subject, bars
        self.found: list[Observation] = []
        self.whole: dict[str, Taps] = {}  # taps by prompt, log-probabilities as "logits"
        self.local: dict[str, Taps] = {}
        self.pieces: dict[Prompt, Tensor] = {}  # logits of prompts in pieces
        self.truths = {name: subject.truth(subject.prompt(name)) for name in (*WHOLE_PROMPTS, "shifted")}

    def everything(self) -> list[Observation]:
        """All comparisons at the engine's levels."""
        for name in WHOLE_PROMPTS:
            self.guarded(name, self.run_whole)
        ran = tuple(self.whole)
        for prompts in [(name,) for name in ran] if self.bars.floors is None else [ran] if ran else []:
            self.judge_whole(prompts)
        for name in PIECES:
            if name.startswith("near") or not self.subject.length_dependent:
                self.guarded(name, self.run_pieces)
        self.guarded("shifted", self.run_shifted)
        self.guarded("again", self.run_again)
        self.found = list(explained(self.found))
        return self.found

    def logits_only(self) -> list[Observation]:
        """The logits of every prompt that the engine can run, each covering all parts of the model."""
        for name in WHOLE_PROMPTS:
            prompt = self.subject.prompt(name)
            try:
                log = log_probabilities(self.engine.run(prompt).logits, prompt)
            except Unsupported:
                continue
            reading = self.bars.read("logits", [log], [self.truths[name].taps], False, self.subject.spec.chosen)
            self.file(name, reading, frozenset(pair for pair in self.covered_by_logits(name) if pair[1][:5] != "whole"))
        return self.found

    def covered_by_logits(self, prompt: str) -> frozenset[Pair]:
        """All that the logits of a prompt cover if nothing else is shown."""
        return covered(self.subject, prompt, "whole", -1, LOGITS)

    def guarded(self, name: str, step: Callable[[str], None]) -> None:
        """Run one step; an exception becomes its outcome."""
        try:
            step(name)
        except Unsupported as reason:
            self.lost(name, State.UNSUPPORTED, str(reason))
        except Exception as error:
            self.lost(name, State.BROKEN, f"{type(error).__name__}: {str(error)[:300]}")

    def lost(self, prompt: str, state: State, why: str) -> None:
        """Record that nothing could be compared, and why."""
        self.found.append(Observation(self.subject.name, prompt, "", self.covered_by_logits(prompt), state, why, compared=0))

    def run_whole(self, name: str) -> None:
        """A prompt at once, and its modules by themselves."""
        prompt, levels = self.subject.prompt(name), self.engine.about().levels
        answer = self.engine.run(prompt, taps="L3" in levels)
        log = log_probabilities(answer.logits, prompt)
        if "L4" in levels:
            self.local[name] = with_masks(self.engine.inject(prompt, self.truths[name].inputs))
        self.whole[name] = with_masks({**answer.taps, "logits": log})

    def judge_whole(self, prompts: tuple[str, ...]) -> None:
        """Modules by themselves, then the whole, then its choices of tokens. In a low precision all prompts at once: means
        over few tokens say little."""
        first = self.truths[prompts[0]]
        by_itself = self.judged(self.local.get(prompts[0], {}), first.local, True)
        together = self.judged(self.whole[prompts[0]], first.taps, False)
        if by_itself and self.bars.floors is not None:
            together = frozenset(["logits"])  # there is no floor for rounding amplified along a whole model
        shown = by_itself | together | {more for kind in together for more in ALSO_SHOWN.get(kind, ())}

        def kinds_shown(kind: str) -> Sequence[str]:
            return (*({kind} - by_itself), *ALSO_SHOWN.get(kind, ()))

        if by_itself:
            self.hold(prompts, True, by_itself, shown, lambda kind: (kind,))
        self.hold(prompts, False, together, shown, kinds_shown)
        for name in prompts:
            self.choose(name)

    def judged(self, got: Taps, want: Taps, local: bool) -> frozenset[str]:
        """The kinds of taps that are shown anywhere, and that there is a bar for."""
        kinds = {kind_of(tap, want) for tap in got if tap in want}
        return frozenset(kind for kind in kinds if self.bars.judges(kind, local))

    def hold(
        self, prompts: Sequence[str], local: bool, kinds: Collection[str], shown: Collection[str], kinds_shown: KindsShown
    ) -> None:
        """Every tap against the truth, in the order of the data path. A kind that is shown in one layer must be shown in
        all."""
        got = [(self.local if local else self.whole)[name] for name in prompts]
        want = [self.truths[name].local if local else self.truths[name].taps for name in prompts]
        for tap in self.truths[prompts[0]].taps:
            kind = kind_of(tap, want[0])
            if kind not in kinds:
                continue
            pairs = (covered(self.subject, name, each, layer_of(tap), shown) for name in prompts for each in kinds_shown(kind))
            covers, prompt = frozenset[Pair]().union(*pairs), " ".join(prompts)
            if all(tap in taps for taps in got):
                reading = self.bars.read(tap, [taps[tap] for taps in got], want, local, self.subject.spec.chosen)
                self.file(prompt, reading, covers, local)
            else:
                gone = Observation(
                    self.subject.name,
                    prompt,
                    tap,
                    covers,
                    State.OFF,
                    "it is not shown",
                    local=local,
                )
                self.found.append(gone)

    def file(self, prompt: str, reading: Reading, covers: frozenset[Pair], local: bool = False) -> None:
        """A reading as an observation."""
        observation = Observation(
            case=self.subject.name,
            prompt=prompt,
            place=reading.tap,
            covers=covers,
            state=State.FITS if reading.fits else State.OFF,
            detail=reading.what,
            error=reading.error,
            bar=reading.bar,
            alike=reading.alike,
            excused=reading.excused,
            local=local,
        )
        self.found.append(observation)

    def choose(self, name: str) -> None:
        """The greedy tokens, with the tolerance of the logits."""
        want = self.truths[name].taps["logits"]
        chosen = choices(self.whole[name]["logits"], want, self.bars.nats(want))
        state, covers = State.OFF if chosen.wrong else State.FITS, frozenset([("GENR-004", "tokens")])
        tokens = Observation(self.subject.name, name, "tokens", covers, state, chosen.first, compared=len(want))
        self.found.append(replace(tokens, excused=chosen.ties))

    def run_pieces(self, name: str) -> None:
        """A prompt in several calls on one cache."""
        base, sizes = PIECES[name]
        whole = self.subject.prompt(base)
        prompt = Prompt(whole.ids, whole.positions, sizes)
        self.pieces[prompt] = log_probabilities(self.engine.run(prompt).logits, prompt)
        self.against_itself(name, base, self.pieces[prompt])

    def against_itself(self, name: str, base: str, log: Tensor, but: frozenset[str] = frozenset()) -> None:
        """Log-probabilities of a prompt against the engine's own from another way of calling: both may be off by the bar."""
        if base not in self.whole:
            raise Unsupported(f"the prompt {base!r} as it is gave nothing to compare with")
        want = {**self.truths[base].taps, "logits": self.whole[base]["logits"]}
        reading = self.bars.read("logits", [log], [want], False, self.subject.spec.chosen, slack=2)
        covers = self.covered_by_logits(name)
        self.file(name, reading, frozenset(pair for pair in covers if pair[0] not in but))

    def run_shifted(self, name: str) -> None:
        """Every position larger by a constant."""
        if covers := self.covered_by_logits(name):
            prompt = self.subject.prompt(name)
            log = log_probabilities(self.engine.run(prompt).logits, prompt)
            reading = self.bars.read("logits", [log], [self.truths[name].taps], False, self.subject.spec.chosen)
            self.file(name, reading, covers)

    def run_again(self, name: str) -> None:
        """The first prompt twice more, after others: the same bits twice, and the same as before."""
        prompt = self.subject.prompt("near")
        one, two = (self.engine.run(prompt).logits for _ in range(2))
        same = torch.equal(one, two)
        detail = "" if same else f"two calls differ by up to {float((one - two).abs().max()):.2g}"
        state, bits = State.FITS if same else State.OFF, frozenset([("NUMR-003", "whole")])
        self.found.append(Observation(self.subject.name, name, "logits", bits, state, detail))
        self.against_itself(name, "near", log_probabilities(two, prompt), frozenset(["NUMR-003"]))

    def growth(self) -> Iterator[Point]:
        """The errors along the data path of the near prompt, each with its bar."""
        want, got = self.truths["near"].taps, self.whole.get("near", {})
        for tap in want:
            if tap in got and kind_of(tap, want) != "mask" and self.bars.judges(kind_of(tap, want), False):
                reading = self.bars.read(tap, [got[tap]], [want], False, self.subject.spec.chosen)
                yield Point(tap, reading.kind, reading.error, reading.bar)


def log_probabilities(logits: Tensor, prompt: Prompt) -> Tensor:
    """float64 [T, V]."""
    if logits.ndim != 2 or len(logits) != len(prompt.ids):
        raise Broken(f"logits of shape {list(logits.shape)} for {len(prompt.ids)} tokens; expected one row a token")
    return logits.detach().cpu().double().log_softmax(-1)


def layer_of(tap: str) -> int:
    """The layer that a tap belongs to; -1 outside of the layers."""
    return int(tap.split(".")[1]) if tap.startswith("layers.") else -1
