"""One kata's tests, run against one file, in the process that this runs in: which file was tested, and what happened.

Exactly one module of the runtime is exchanged: it is imported from the learner's file under its real name, so that every other
module that uses it gets the learner's. All other modules are the real ones.
"""

import builtins
import importlib
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Any

import torch

from conformance import ROOT
from conformance.katas.course import Kata
from conformance.katas.pages import difference, show
from conformance.katas.testing import compare
from conformance.katas.testing.compare import SEEN, Seen

MACHINERY = tuple(  # modules and rooms that hold the results, and stay loaded
    f"conformance.katas.{name}"
    for name in ("__main__", "checking", "laws", "pages", "course", "progress", "stub", "testing.compare")
)
PACKAGES = ("conformance", "conformance.katas", "conformance.katas.testing")
Watched = dict[tuple[str, str], Any]


class NotTheirs(Exception):
    """What is under test isn't the learner's file, or not all of it is."""


@dataclass
class Sat:
    """One test as it went: what it compared, and what it ended with."""

    name: str
    about: str = ""
    seen: list[Seen] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def unwritten(self) -> bool:
        """Whether it met a function that is still the stub."""
        return isinstance(self.error, NotImplementedError) and str(self.error).endswith("is yours to write")


def forget() -> None:
    """Make the next import of the runtime and of the suite a fresh one, but for this machinery, which holds the results."""
    for name in list(sys.modules):
        machinery = name in PACKAGES or name.startswith(MACHINERY)
        if name.partition(".")[0] in ("nanollama", "conformance") and not machinery:
            del sys.modules[name]


def make_ready(kata: Kata) -> None:
    """Import what changes torch when it is imported, so that it isn't taken for the learner's doing."""
    for name in kata.imports:
        importlib.import_module(name)


def tests_module(kata: Kata) -> str:
    """The module with a kata's tests."""
    return ".".join(kata.tests.relative_to(ROOT).with_suffix("").parts)


@contextmanager
def fresh() -> Iterator[None]:
    """A runtime of its own inside the block; afterwards what was imported before is there again."""
    before = dict(sys.modules)
    forget()
    try:
        yield
    finally:
        forget()
        sys.modules.update(before)


class Fresh(SourceFileLoader):
    """Compiles the file as it is now: no bytecode that lies beside it can stand in for it."""

    def get_code(self, fullname: str) -> CodeType:
        """The code of the module."""
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


class InFront(MetaPathFinder):
    """Finds one module, and no other, in the learner's file."""

    def __init__(self, module: str, file: Path) -> None:
        self.module, self.file = module, str(file)

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Asked for every import; None sends it on to where it is found usually."""
        loader = Fresh(fullname, self.file)
        return spec_from_file_location(fullname, self.file, loader=loader) if fullname == self.module else None


def put_in_front(kata: Kata, file: Path) -> None:
    """Import the kata's module from this file, whoever asks for it first: its own package may."""
    if kata.module in sys.modules:
        raise NotTheirs(f"{kata.module} was imported before {file}")
    finder = InFront(kata.module, file)
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module(kata.module)
    finally:
        sys.meta_path.remove(finder)


def prove(kata: Kata, file: Path) -> None:
    """Raise NotTheirs unless every target that the tests will call was defined in this file."""
    module = sys.modules[kata.module]
    if not module.__file__ or not Path(module.__file__).samefile(file):
        raise NotTheirs(f"{module.__file__} would be tested, not {file}")
    for target in kata.targets:
        found: Any = module
        for part in target.split("."):
            found = vars(found).get(part) if hasattr(found, "__dict__") else None
        for wrapper in ("__func__", "fget", "func", "__wrapped__"):
            found = getattr(found, wrapper, found)
        if found is None:
            raise NotTheirs(f"there is no {target} in this file; the tests call it by that name")
        code = getattr(found, "__code__", None)
        if code is None or code.co_filename != str(file) or code.co_qualname != target:
            raise NotTheirs(f"{target} is not a function that this file defines; write it with `def`, where the stub was")


def load_tests(kata: Kata) -> list[Callable[[], None]]:
    """The tests of a kata, in teaching order."""
    module = importlib.import_module(tests_module(kata))
    return [getattr(module, name) for name in kata.test_names]


def sit(test: Callable[[], None]) -> Sat:
    """Run one test. A test that compares nothing has failed: nothing was shown."""
    sat = Sat(test.__name__, " ".join((test.__doc__ or "").split()))
    SEEN.clear()
    torch.manual_seed(0)
    try:
        test()
        if not SEEN:
            raise NotTheirs("the test compared nothing")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() and the like are no way to pass
        sat.error = error
    sat.seen = list(SEEN)
    return sat


def watched() -> Watched:
    """What the verdict rests on, and a kata has no business to change: the names of torch, of Python, and of this machinery."""
    modules = [builtins, math, torch, torch.nn.functional, compare, difference, show, sys.modules[__name__]]
    names = {(each.__name__, key): value for each in modules for key, value in vars(each).items() if not key.startswith("__")}
    for kind in (torch.Tensor, torch.nn.Module):
        for base in reversed(kind.__mro__):
            names |= {(kind.__qualname__, key): value for key, value in vars(base).items()}
    return names


def untouched(before: Watched) -> None:
    """Raise NotTheirs if one of these names stands for something else by now; torch may have imported more of itself."""
    now = watched()
    for (holder, key), value in before.items():
        if now.get((holder, key)) is not value:
            raise NotTheirs(f"this file changes {holder}.{key}, which the tests rely on; a kata defines, it doesn't patch")


def sit_all(tests: list[Callable[[], None]], before: Watched, begins: Callable[[str], object]) -> list[Sat]:
    """Run the tests in order, and see after each that nothing was patched; `begins` hears the name of each before."""
    done = []
    for test in tests:
        begins(test.__name__)
        sat = sit(test)
        untouched(before)
        done.append(sat)
    return done


def same_answers(one: list[Sat], other: list[Sat]) -> bool:
    """Whether two runs computed the same in every comparison, but for tests that met a function still unwritten."""
    return all(same_test(a, b) for a, b in zip(one, other, strict=True) if not a.unwritten)


def same_test(a: Sat, b: Sat) -> bool:
    """Whether one test saw the same in two runs."""
    ends = [type(each.error).__name__ for each in (a, b)]
    return (
        ends[0] == ends[1]
        and len(a.seen) == len(b.seen)
        and all(difference.difference(x.got, y.got, x.within) is None for x, y in zip(a.seen, b.seen, strict=True))
    )
