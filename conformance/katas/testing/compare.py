"""The assertions of katas' tests: `answers` calls a function and compares its result, `refuses` requires an error, `agree`
compares two values. All compared values are recorded in COMPARED, so that a mistake can be recognised by its values.

The first failure is reported, in this order: a result at all, type, shape, dtype, inputs unchanged, NaN, values.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, equal

from conformance.katas.pages.difference import wrong_form, wrong_value
from conformance.katas.pages.show import shown

LINE = 110  # characters; longer inputs are not shown


@dataclass(frozen=True)
class Compared:
    """One comparison: the value that came, and the tolerance."""

    got: Any
    within: float | None


COMPARED: list[Compared] = []  # comparisons of the running test; `run_test` empties it first


class Disagreement(AssertionError):
    """The result is not what was wanted; the message is for the learner."""


def answers(function: Callable[..., Any], *inputs: Any, want: Any, within: float | None = None) -> None:
    """function(*inputs) must return `want` and leave its inputs unchanged.

    `within` is the absolute tolerance; by default 8 units in the last place of the largest number wanted.
    """
    mine = copied(inputs)
    got = function(*mine)
    edited = [name for name, old in named(function, inputs).items() if changed(named(function, mine)[name], old)]
    agree(called(function), got, want, within=within, inputs=named(function, inputs), edited=edited)


def refuses(function: Callable[..., Any], *inputs: Any, error: type[Exception], naming: str) -> None:
    """function(*inputs) must raise this kind of error, with `naming` in its message."""
    try:
        got = function(*copied(inputs))
    except error as raised:
        COMPARED.append(Compared((type(raised).__name__, naming in str(raised)), None))
        if naming not in str(raised):
            disagree(called(function), f"the error should name {naming!r}; its message is: {raised}", named(function, inputs))
        return
    COMPARED.append(Compared(copied(got), None))
    problem = f"returned {shown(got)}, want an error ({error.__name__}) that names {naming!r}"
    disagree(called(function), problem, named(function, inputs))


def agree(
    name: str,
    got: Any,
    want: Any,
    *,
    within: float | None = None,
    inputs: Mapping[str, Any] | None = None,
    edited: list[str] | None = None,
) -> None:
    """`got` must equal `want`: type, shape and dtype strictly, then the numbers. `name` begins the message."""
    COMPARED.append(Compared(copied(got), within))
    problem = wrong_form(got, want)
    if not problem and edited:
        problem = f"edited its input {edited[0]} in place, which its caller still needs"
    if problem := problem or wrong_value(got, want, within):
        disagree(name, problem, inputs or {})


def disagree(name: str, problem: str, inputs: Mapping[str, Any]) -> None:
    """Raise Disagreement, with the inputs if they are short."""
    given = f"\ninputs: {shown(inputs)}"
    raise Disagreement(f"{name}: {problem}" + (given if inputs and len(given) <= LINE else ""))


def called(function: Callable[..., Any]) -> str:
    """A function's qualified name; for a module of the model, that of its forward."""
    return str(getattr(function, "__qualname__", f"{type(function).__name__}.forward"))


def named(function: Callable[..., Any], inputs: tuple[Any, ...]) -> dict[str, Any]:
    """The inputs by parameter name."""
    return dict(inspect.signature(getattr(function, "forward", function)).bind(*inputs).arguments)


def copied(value: Any) -> Any:
    """A deep copy of tensors, lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) in (list, tuple):
        return type(value)(map(copied, value))
    return {key: copied(each) for key, each in value.items()} if type(value) is dict else value


def changed(now: Any, before: Any) -> bool:
    """Whether a value or anything in it has been edited."""
    if isinstance(before, Tensor):
        return not (equal(now.isnan(), before.isnan()) and equal(now.nan_to_num(), before.nan_to_num()))
    if type(before) in (list, tuple):
        return len(now) != len(before) or any(map(changed, now, before))
    if type(before) is dict:
        return now.keys() != before.keys() or any(changed(now[key], before[key]) for key in before)
    return False
