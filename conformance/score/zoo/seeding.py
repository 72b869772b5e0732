"""Seed a bug of the zoo into the live runtime, and take it out again.

A bug is data: a function, a text in it and another text. The text must occur exactly once, so that a changed runtime raises
ZooBroken instead of silently disabling the bug.
"""

import ast
import difflib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module

from conformance.score.zoo.entries import Bug, Edit, ZooBroken, load_zoo
from conformance.score.zoo.live import (
    TEXTS,
    edited_text,
    exchange_constant,
    exchange_function,
    find_definition,
    forget_cached,
    source_text,
)

__all__ = ["Bug", "Edit", "ZooBroken", "difference", "load_zoo", "seeded"]


@contextmanager
def edited(edit: Edit) -> Iterator[None]:
    """The live runtime with one edit, inside the block."""
    before, text = TEXTS.get(edit.at), edited_text(edit)
    node = find_definition(edit.at)
    if isinstance(node, ast.ClassDef) or (isinstance(node, ast.Assign | ast.AnnAssign) and "." in edit.at.partition(":")[2]):
        raise ZooBroken(f"{edit.at}: edit a function, a method or a module's constant, not a class or its fields")
    exchange = exchange_constant if isinstance(node, ast.Assign | ast.AnnAssign) else exchange_function
    undo = exchange(edit.at, text)
    TEXTS[edit.at] = text
    try:
        yield
    finally:
        undo()
        TEXTS.pop(edit.at)
        if before is not None:
            TEXTS[edit.at] = before


@contextmanager
def seeded(bug: Bug) -> Iterator[None]:
    """The live runtime with this bug, inside the block; blocks may be nested.

    Raises ZooBroken, naming bug and target, unless the target and its text occur exactly once; nothing is changed then.
    """
    with ExitStack() as stack:
        stack.callback(forget_cached)  # runs last
        try:
            for edit in bug.edits:
                stack.enter_context(edited(edit))
            if bug.custom:
                stack.enter_context(custom_seed(bug.custom))
        except ZooBroken as error:
            raise ZooBroken(f"zoo entry {bug.name}: {error}") from error
        forget_cached()
        yield


def custom_seed(at: str) -> AbstractContextManager[None]:
    """The context manager "module:function", for bugs that are not edits."""
    module, _, name = at.partition(":")
    seed = getattr(import_module(module), name, None)
    if seed is None:
        raise ZooBroken(f"there is no {at}")
    manager: AbstractContextManager[None] = seed()
    return manager


def difference(bug: Bug) -> str:
    """The bug as a unified diff."""
    parts: list[str] = []
    befores = {edit.at: source_text(edit.at) for edit in bug.edits}
    with ExitStack() as stack:
        for edit in bug.edits:
            stack.enter_context(edited(edit))
        for at, before in befores.items():
            lines = before.splitlines(keepends=True), source_text(at).splitlines(keepends=True)
            parts += difflib.unified_diff(*lines, f"a/{at}", f"b/{at}")
    return "".join(parts)
