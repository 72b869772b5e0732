"""One comparison of an engine's value with the truth, and the requirements that it covers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

Pair = tuple[str, str]  # a requirement, and the kind of tap that shows it by itself


class State(StrEnum):
    """The outcome of one comparison."""

    FITS = "fits"
    OFF = "off"
    CONSEQUENCE = "consequence"  # off, because something before it is off
    UNSUPPORTED = "unsupported"
    BROKEN = "broken"


@dataclass(frozen=True)
class Observation:
    """One comparison, or in `detail` the reason why there is none. `alike`: it rounds where the runtime rounds; `local`: a
    module on true inputs."""

    case: str
    prompt: str
    place: str
    covers: frozenset[Pair]
    state: State
    detail: str = ""
    error: float | None = None
    bar: float | None = None
    alike: bool = True
    excused: int = 0
    compared: int = 1
    local: bool = False

    @property
    def made(self) -> bool:
        """Whether anything was compared."""
        return self.state in (State.FITS, State.OFF, State.CONSEQUENCE)

    @property
    def excess(self) -> float:
        """The error as a multiple of its bar; infinite where there is none."""
        if self.error is None or self.bar is None:
            return 0.0 if self.state is State.FITS else float("inf")
        return self.error / self.bar if self.bar else float("inf") if self.error else 0.0


ORDER = {"self_attn.weights": "self_attn.mask", "self_attn.context": "self_attn.weights", "mlp": "mlp.gate"}  # within a module


def explained(found: Iterable[Observation]) -> Iterator[Observation]:
    """The same, with consequences of another fault marked: in a module by itself, all after its first value that is off; a
    layer's sum, if one of its parts is off; in the whole model, all after a faulty module or after the first tap that is off;
    with shifted positions, all if an unshifted prompt is off."""
    found = list(found)
    faulty = {(o.prompt, o.place) for o in found if o.local and o.state is State.OFF}
    seen_off: set[str] = set()
    for o in found:
        if o.state is State.OFF:
            if o.local:
                consequence = any((o.prompt, place) in faulty for place in before(o.place, faulty))
            else:
                consequence = bool(faulty) or o.prompt in seen_off or (o.prompt == "shifted" and bool(seen_off))
                seen_off.add(o.prompt)
            o = replace(o, state=State.CONSEQUENCE) if consequence else o
        yield o


def before(place: str, faulty: Iterable[tuple[str, str]]) -> list[str]:
    """The values that a value of a module by itself depends on: others of the module, or of the layer."""
    layer = ".".join(place.split(".")[:2])
    if place == layer and layer.startswith("layers."):
        return [other for _, other in faulty if other.startswith(f"{layer}.")]
    found, last = list[str](), place.removeprefix(f"{layer}.")
    while last in ORDER:
        last = ORDER[last]
        found.append(f"{layer}.{last}")
    return found
