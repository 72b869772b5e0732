"""Run one kata's tests against one file in this process, and prove which file was tested.

Exactly one module of the runtime is replaced: it is imported from the learner's file under its real name, so that every module
that uses it gets the learner's. All other modules are the real ones.
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
from conformance.katas.testing.compare import COMPARED, Compared

MACHINERY = tuple(  # modules and packages that hold the results: they stay loaded
    f"conformance.katas.{name}"
    for name in ("__main__", "checking", "laws", "pages", "course", "progress", "stub", "testing.compare")
)
PACKAGES = ("conformance", "conformance.katas", "conformance.katas.testing")
WatchedNames = dict[tuple[str, str], Any]


class InvalidRun(Exception):
    """The run proves nothing: it tested something else than the learner's file, or compared nothing."""


@dataclass
class FinishedTest:
    """One test that was run: its comparisons, and the error that ended it."""

    name: str
    about: str = ""
    compared: list[Compared] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def unwritten(self) -> bool:
        """Whether it met a function that is still the stub."""
        return isinstance(self.error, NotImplementedError) and str(self.error).endswith("is yours to write")


def unload() -> None:
    """Unload the runtime and the suite, so that the next import is a fresh one; MACHINERY stays loaded."""
    for name in list(sys.modules):
        machinery = name in PACKAGES or name.startswith(MACHINERY)
        if name.partition(".")[0] in ("nanollama", "conformance") and not machinery:
            del sys.modules[name]


def import_dependencies(kata: Kata) -> None:
    """Import the modules that change torch, so that the change isn't taken for the learner's."""
    for name in kata.imports:
        importlib.import_module(name)


def tests_module(kata: Kata) -> str:
    """The module with a kata's tests."""
    return ".".join(kata.tests.relative_to(ROOT).with_suffix("").parts)


@contextmanager
def fresh_runtime() -> Iterator[None]:
    """Imports are fresh inside the block; afterwards the modules from before are loaded again."""
    before = dict(sys.modules)
    unload()
    try:
        yield
    finally:
        unload()
        sys.modules.update(before)


class SourceOnlyLoader(SourceFileLoader):
    """Compiles the file as it is now, never from cached bytecode."""

    def get_code(self, fullname: str) -> CodeType:
        """The code of the module."""
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


class OneModuleFinder(MetaPathFinder):
    """Finds one module, and no other, in the learner's file."""

    def __init__(self, module: str, file: Path) -> None:
        self.module, self.file = module, str(file)

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Called for every import; None leaves the module to the other finders."""
        loader = SourceOnlyLoader(fullname, self.file)
        return spec_from_file_location(fullname, self.file, loader=loader) if fullname == self.module else None


def import_learners_file(kata: Kata, file: Path) -> None:
    """Import the kata's module from this file, even if its own package imports it first."""
    if kata.module in sys.modules:
        raise InvalidRun(f"{kata.module} was imported before {file}")
    finder = OneModuleFinder(kata.module, file)
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module(kata.module)
    finally:
        sys.meta_path.remove(finder)


def require_targets(kata: Kata, file: Path) -> None:
    """Raise InvalidRun unless every target that the tests will call was defined in this file."""
    module = sys.modules[kata.module]
    if not module.__file__ or not Path(module.__file__).samefile(file):
        raise InvalidRun(f"{module.__file__} would be tested, not {file}")
    for target in kata.targets:
        found: Any = module
        for part in target.split("."):
            found = vars(found).get(part) if hasattr(found, "__dict__") else None
        for wrapper in ("__func__", "fget", "func", "__wrapped__"):
            found = getattr(found, wrapper, found)
        if found is None:
            raise InvalidRun(f"there is no {target} in this file; the tests call it by that name")
        code = getattr(found, "__code__", None)
        if code is None or code.co_filename != str(file) or code.co_qualname != target:
            raise InvalidRun(f"{target} is not a function that this file defines; write it with `def`, where the stub was")


def load_tests(kata: Kata) -> list[Callable[[], None]]:
    """The tests of a kata, in teaching order."""
    module = importlib.import_module(tests_module(kata))
    return [getattr(module, name) for name in kata.test_names]


def run_test(test: Callable[[], None]) -> FinishedTest:
    """Run one test. A test that compares nothing fails."""
    finished = FinishedTest(test.__name__, " ".join((test.__doc__ or "").split()))
    COMPARED.clear()
    torch.manual_seed(0)
    try:
        test()
        if not COMPARED:
            raise InvalidRun("the test compared nothing")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() and the like are no way to pass
        finished.error = error
    finished.compared = list(COMPARED)
    return finished


def watched_names() -> WatchedNames:
    """The names that the verdict depends on and a kata must not change: those of torch, of Python, and of MACHINERY."""
    modules = [builtins, math, torch, torch.nn.functional, compare, difference, show, sys.modules[__name__]]
    names = {(each.__name__, key): value for each in modules for key, value in vars(each).items() if not key.startswith("__")}
    for kind in (torch.Tensor, torch.nn.Module):
        for base in reversed(kind.__mro__):
            names |= {(kind.__qualname__, key): value for key, value in vars(base).items()}
    return names


def require_unpatched(before: WatchedNames) -> None:
    """Raise InvalidRun if one of these names has another value now; new names are allowed, as torch imports itself lazily."""
    now = watched_names()
    for (holder, key), value in before.items():
        if now.get((holder, key)) is not value:
            raise InvalidRun(f"this file changes {holder}.{key}, which the tests rely on; a kata defines, it doesn't patch")


def run_tests(tests: list[Callable[[], None]], before: WatchedNames, begins: Callable[[str], object]) -> list[FinishedTest]:
    """Run the tests in order and check after each that nothing was patched; `begins` is called with each name before."""
    done = []
    for test in tests:
        begins(test.__name__)
        finished = run_test(test)
        require_unpatched(before)
        done.append(finished)
    return done


def same_answers(one: list[FinishedTest], other: list[FinishedTest]) -> bool:
    """Whether two runs computed the same in every comparison; tests of `one` that met an unwritten function don't count."""
    return all(same_test(a, b) for a, b in zip(one, other, strict=True) if not a.unwritten)


NAN = "two runs of one mistake give NaN at the same place"


def same_test(a: FinishedTest, b: FinishedTest) -> bool:
    """Whether one test compared the same values in two runs."""
    ends = [type(each.error).__name__ for each in (a, b)]
    pairs = zip(a.compared, b.compared, strict=True)
    return (
        ends[0] == ends[1]
        and len(a.compared) == len(b.compared)
        and all(difference.difference(x.got, y.got, x.within, NAN) is None for x, y in pairs)
    )
