"""What the tests of katas call: `answers` asks a function and judges what comes back, `refuses` wants an error, `agree`
compares two values. Whatever is compared is kept too, so that a mistake can be told by what it computes.

The first question that fails speaks: something returned? its type, shape, dtype? inputs left alone? numbers? the right ones?
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, equal

from conformance.katas.pages.difference import wrong_form, wrong_value
from conformance.katas.pages.show import shown

LINE = 110  # inputs are shown where they fit


@dataclass(frozen=True)
class Seen:
    """One comparison: what came, and how near counts as the same."""

    got: Any
    within: float | None


SEEN: list[Seen] = []  # what the test that runs now has compared; who runs it empties this first


class Disagreement(AssertionError):
    """What came isn't what was wanted; the message is for the learner."""


def answers(function: Callable[..., Any], *inputs: Any, want: Any, within: float | None = None) -> None:
    """function(*inputs) must return `want`, and must leave its inputs as they are.

    `within` is how far a number may be off; left out, 8 units in the last place of the largest number wanted.
    """
    mine = copied(inputs)
    got = function(*mine)
    edited = [name for name, old in named(function, inputs).items() if changed(named(function, mine)[name], old)]
    agree(called(function), got, want, within=within, inputs=named(function, inputs), edited=edited)


def refuses(function: Callable[..., Any], *inputs: Any, error: type[Exception], naming: str) -> None:
    """function(*inputs) must raise this kind of error, and its message must say `naming`."""
    try:
        got = function(*copied(inputs))
    except error as raised:
        SEEN.append(Seen((type(raised).__name__, naming in str(raised)), None))
        if naming not in str(raised):
            disagree(called(function), f"the error should say {naming!r}; it says: {raised}", named(function, inputs))
        return
    SEEN.append(Seen(copied(got), None))
    problem = f"returned {shown(got)}, want an error ({error.__name__}) that says {naming!r}"
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
    """What came must be what is wanted: type, shape and dtype strictly, then the numbers. `name` says whose answer it is."""
    SEEN.append(Seen(copied(got), within))
    problem = wrong_form(got, want)
    if not problem and edited:
        problem = f"edited its input {edited[0]} in place, which its caller still needs"
    if problem := problem or wrong_value(got, want, within):
        disagree(name, problem, inputs or {})


def disagree(name: str, problem: str, inputs: Mapping[str, Any]) -> None:
    """End the test, and say why."""
    given = f"\ninputs: {shown(inputs)}"
    raise Disagreement(f"{name}: {problem}" + (given if inputs and len(given) <= LINE else ""))


def called(function: Callable[..., Any]) -> str:
    """A function's name; of a module of the model, that of its forward."""
    return str(getattr(function, "__qualname__", f"{type(function).__name__}.forward"))


def named(function: Callable[..., Any], inputs: tuple[Any, ...]) -> dict[str, Any]:
    """The inputs by the names that the function has for them."""
    return dict(inspect.signature(getattr(function, "forward", function)).bind(*inputs).arguments)


def copied(value: Any) -> Any:
    """A value whose tensors, lists and dicts are its own."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) in (list, tuple):
        return type(value)(map(copied, value))
    return {key: copied(each) for key, each in value.items()} if type(value) is dict else value


def changed(now: Any, before: Any) -> bool:
    """Whether a value, its tensors, lists or dicts have been edited."""
    if isinstance(before, Tensor):
        return not (equal(now.isnan(), before.isnan()) and equal(now.nan_to_num(), before.nan_to_num()))
    if type(before) in (list, tuple):
        return len(now) != len(before) or any(map(changed, now, before))
    if type(before) is dict:
        return now.keys() != before.keys() or any(changed(now[key], before[key]) for key in before)
    return False
