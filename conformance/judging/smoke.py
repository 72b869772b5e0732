"""`python -m conformance smoke`: is the adapter sound? Only then do the values show whether the engine is right.

Each probe tests one thing that every engine, right or wrong, must pass: shapes, finite numbers, names, and that an answer
depends on the input and on nothing else. Whether the values are right is only printed at the end.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from conformance.engines.engine import Engine, Prompt, Taps, Unsupported
from conformance.engines.registry import find_engine
from conformance.engines.subject import Subject, subject
from conformance.judging.bars import Bars
from conformance.judging.evidence.case_comparison import CaseComparison
from conformance.judging.evidence.observations import State
from conformance.models.fixtures import FIXTURES
from conformance.numerics.floor import kind_of
from conformance.requirements.requirement import LEVELS
from conformance.requirements.results import About
from nanollama.model.dtypes import DTYPES


class Unsound(Exception):
    """The fault of an adapter; the message is a sentence."""


class Adapter:
    """An engine with a subject loaded, tested without its values."""

    def __init__(self, engine: Engine, this: Subject) -> None:
        self.engine, self.subject, self.prompt = engine, this, this.prompt("near")

    def probes(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Every probe: a description and its function."""
        levels = self.engine.about().levels
        yield "logits have a row for each token and a column for each entry of the vocabulary", self.logits
        yield "logits are finite numbers", self.numbers
        yield "the same prompt gives the same answer again", self.again
        yield "another first token gives other logits", self.depends
        if "L3" in levels:
            yield "taps are named and shaped as those of conformance.truth.taps", self.taps
            yield "taps depend on the prompt", self.taps_depend
        if "L4" in levels:
            yield "an injected input changes what its module gives", self.injects

    def run(self, taps: bool = False, begin: int | None = None) -> tuple[Tensor, Taps]:
        """Logits and taps of the prompt, or of one that begins with another token."""
        ids = self.prompt.ids if begin is None else (begin, *self.prompt.ids[1:])
        answer = self.engine.run(Prompt(ids, self.prompt.positions), taps)
        return answer.logits, answer.taps

    def logits(self) -> None:
        """Their shape and dtype."""
        logits, want = self.run()[0], [len(self.prompt.ids), self.subject.spec.vocab]
        expect(list(logits.shape) == want, f"logits have the shape {list(logits.shape)} instead of {want}")
        expect(logits.is_floating_point(), f"logits are {logits.dtype}, which is no floating-point number")

    def numbers(self) -> None:
        """No NaN, no infinity."""
        bad = int((~self.run()[0].isfinite()).sum())
        expect(bad == 0, f"{bad} logits are NaN or infinite")

    def again(self) -> None:
        """Determinism."""
        one, two = self.run()[0], self.run()[0]
        off = float((one - two).abs().max())
        expect(
            off == 0, f"two runs of the same prompt differ by up to {off:.2g}: something is left over from the first, or drawn"
        )

    def depends(self) -> None:
        """Logits depend on the input."""
        one, two = self.run()[0], self.run(begin=self.other())[0]
        expect(not torch.equal(one[0], two[0]), "another first token gives the same logits: they don't depend on the input")

    def taps(self) -> None:
        """Names, shapes, numbers."""
        got, want = self.run(taps=True)[1], self.subject.truth(self.prompt).taps
        expect(bool(got), "the engine offers L3 and shows no tap")
        unknown = [name for name in got if name not in want]
        expect(not unknown, f"there is no tap {', '.join(unknown[:3])} in this model; there are {', '.join([*want][:6])} …")
        kinds = {kind_of(name, want) for name in got}
        gone = [name for name in want if kind_of(name, want) in kinds and name not in got]
        expect(not gone, f"the tap {', '.join(gone[:3])} is missing, though others of its kind are there")
        for name, value in got.items():
            shape = list(want[name].shape)
            expect(list(value.shape) == shape, f"the tap {name} has the shape {list(value.shape)} instead of {shape}")
            expect(not value.isnan().any(), f"the tap {name} holds NaN")

    def taps_depend(self) -> None:
        """Taps depend on the input."""
        one, two = self.run(taps=True)[1], self.run(taps=True, begin=self.other())[1]
        frozen = [name for name in one if name in two and torch.equal(one[name], two[name])]
        expect(not frozen, f"the tap {', '.join(frozen[:3])} is the same for another prompt")

    def injects(self) -> None:
        """Inputs go in, one at a time."""
        inputs = self.subject.truth(self.prompt).inputs
        name = "layers.0.mlp"
        one, two = (self.engine.inject(self.prompt, {name: factor * inputs[name]})[name] for factor in (1.0, 2.0))
        expect(not torch.equal(one, two), f"twice the input of {name} gives the same output: it was not put in")

    def other(self) -> int:
        """Another token than the prompt's first."""
        return (self.prompt.ids[0] + 1) % self.subject.spec.vocab


def expect(good: bool, otherwise: str) -> None:
    """Unsound unless good."""
    if not good:
        raise Unsound(otherwise)


def sound(about: About) -> None:
    """Its name, version, levels and dtype are valid."""
    expect(bool(about.name) and bool(about.version), "the engine states no name or version")
    expect(set(about.levels) <= set(LEVELS), f"it offers {about.levels}; levels are {', '.join(LEVELS)}")
    expect("L2" in about.levels, f"it offers {about.levels or 'nothing'}; this needs L2, logits. {about.notes}".strip())
    expect(about.dtype in DTYPES, f"it states that it computes in {about.dtype!r}; expected one of {', '.join(DTYPES)}")


def smoke_command(name: str) -> int:
    """Print one line a probe; the exit status is 1 if the adapter is not sound."""
    engine = find_engine(name)
    try:
        about = engine.about()
        sound(about)
        return smoke(engine, about)
    except Unsound as reason:
        print(f"BROKEN  {reason}")
        return 1
    finally:
        engine.close()


def smoke(engine: Engine, about: About) -> int:
    """Run every probe on the first family that loads, and print whether its values are right."""
    this = loadable(engine, about.dtype)
    adapter, failed = Adapter(engine, this), 0
    print(f"{about.name} {about.version}, {' '.join(about.levels)}, {about.dtype}, on {this.name}\n")
    for what, ask in adapter.probes():
        status, _, reason = outcome(ask).partition(" ")
        failed += status == "BROKEN"
        print(f"{status:8}{what}" + (f"\n        {reason}" if reason else ""))
    if failed:
        print(f"\nthe adapter is broken: {failed} of these no engine can fail; its values show nothing yet")
        return 1
    off = [o for o in CaseComparison(engine, this, Bars(about.dtype, about.device)).everything() if o.state is State.OFF]
    values = f"its values are not: the first that is off is {off[0].place}" if off else "its values are right"
    print(f"\nthe adapter is sound, and {values}. All families: python -m conformance run --engine NAME")
    return 0


def loadable(engine: Engine, dtype: str) -> Subject:
    """The first family that the engine loads."""
    reasons = []
    for family in FIXTURES:
        this = subject(family, dtype)
        try:
            engine.load(this.case.folder)
        except Unsupported as reason:
            reasons.append(f"{family}: {reason}")
        except Exception as error:
            raise Unsound(f"loading {family} ended with {type(error).__name__}: {str(error)[:300]}") from error
        else:
            return this
    raise Unsound(f"it loads none of the suite's families; {reasons[0]}")


def outcome(ask: Callable[[], None]) -> str:
    """ "ok"; "BROKEN" and the fault; or "-" and the reason why the probe could not run."""
    try:
        ask()
    except Unsound as reason:
        return f"BROKEN {reason}"
    except Unsupported as reason:
        return f"- {reason}"
    except Exception as error:
        return f"BROKEN {type(error).__name__}: {str(error)[:300]}"
    return "ok"
