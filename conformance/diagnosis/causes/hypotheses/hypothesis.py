"""A hypothesis: one possible fault of an engine, as a sentence, and the model with that fault.

Written from the requirements: every field with its defaults and its neighbours, every tensor missing, exchanged or laid out
otherwise, and for every function the slips that its formula invites.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from conformance.truth.reference import Reference
from conformance.truth.spec import Spec

Tensors = Mapping[str, Tensor]
LABELS = {  # the classes of causes
    "mask": "which keys a query sees",
    "scale": "what q·k is multiplied by",
    "cap": "limits: of attention scores, of logits",
    "softmax": "how scores become weights",
    "grouping": "which key/value head a query head uses",
    "heads": "how heads are cut out of a row and put together again",
    "frequencies": "how fast the pairs of a head turn, and how much they are sharpened",
    "turning": "which pairs turn, which way, in which layers",
    "cache": "keys, values and positions of earlier calls",
    "norm": "formula, epsilon and weight of a norm",
    "activation": "the nonlinearity of an MLP, and which of gate and up it is applied to",
    "routing": "which experts a token goes to, and how their answers are added",
    "matrices": "matrices and biases",
    "residual": "what is added to the residual stream, and what goes into each part",
    "embedding": "token and position embeddings",
    "head": "logits from the last hidden state",
}


@dataclass(frozen=True)
class Hypothesis:
    """Changed `fields` of the spec, changed `tensors`, and `code` that overrides the reference."""

    label: str
    sentence: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    tensors: Tensors = field(default_factory=dict)
    code: type[Reference] | None = None


class Wrong(Reference):
    """A reference with the number of the call of each token, [T]."""

    calls: Tensor


def model_of(spec: Spec, tensors: Tensors, several: Sequence[Hypothesis], given: Tensors, calls: Tensor) -> Reference:
    """The reference with all of these faults at once, continuing from an engine's values."""
    codes = tuple(h.code for h in several if h.code)
    kind: Any = type("Several", (*codes, Wrong), {})
    for h in several:
        spec, tensors = replace(spec, **h.fields), {**tensors, **h.tensors}
    model: Wrong = kind(spec, tensors, given)
    model.calls = calls
    return model


@dataclass(frozen=True)
class Slip:
    """A wrong function, and the models in which it changes the result; its docstring is the sentence, `s` the spec."""

    label: str
    code: type[Wrong]
    when: Callable[[Spec], Any]

    def hypothesis(self, spec: Spec) -> Hypothesis:
        """The hypothesis for a model."""
        return Hypothesis(self.label, " ".join((self.code.__doc__ or "").split()).format(s=spec), code=self.code)


SLIPS: list[Slip] = []


def always(spec: Spec) -> bool:
    """Every model."""
    return True


def slip(label: str, method: str = "", when: Callable[[Spec], Any] = always) -> Callable[[Any], Any]:
    """Register a function in place of a method of the reference, or a class in place of the reference."""

    def register(wrong: Any) -> Any:
        code = wrong if isinstance(wrong, type) else type("Slip", (Wrong,), {method: wrong, "__doc__": wrong.__doc__})
        SLIPS.append(Slip(label, code, when))
        return wrong

    return register


def slips(spec: Spec) -> Iterator[Hypothesis]:
    """The slips that are possible in this model."""
    return (each.hypothesis(spec) for each in SLIPS if each.when(spec))
