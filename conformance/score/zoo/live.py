"""The live runtime of this process: the text of its functions, and how to replace a function and restore it.

The code object inside a function is replaced, so that every reference to the function changes with it: modules that imported
it by name, tables, decorators, existing instances.
"""

import ast
import linecache
import sys
import textwrap
from collections.abc import Callable
from importlib import import_module
from inspect import unwrap
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from conformance.score.zoo.entries import Edit, ZooBroken

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
TREES: dict[str, tuple[list[str], ast.Module]] = {}  # lines and tree of every module that has a target, as first read
TEXTS: dict[str, str] = {}  # the seeded texts by target


def module_tree(name: str) -> tuple[list[str], ast.Module]:
    """A module's lines and syntax tree."""
    if name not in TREES:
        try:
            path = import_module(name).__file__
        except ImportError as error:
            raise ZooBroken(f"there is no module {name}") from error
        text = Path(path or "").read_text(encoding="utf-8")
        TREES[name] = text.splitlines(keepends=True), ast.parse(text)
    return TREES[name]


def defined_names(node: ast.stmt) -> list[str]:
    """The names that a statement of a module or class defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def find_definition(at: str) -> Definition:
    """The statement that "module:qualified.name" names."""
    module, _, path = at.partition(":")
    body: list[ast.stmt] = module_tree(module)[1].body
    for part in path.split("."):
        found = [node for node in body if part in defined_names(node)]
        if len(found) != 1:
            raise ZooBroken(f"{at}: {part!r} is defined {len(found)} times there, expected once")
        body = getattr(found[0], "body", [])
    assert isinstance(found[0], Definition)
    return found[0]


def source_text(at: str) -> str:
    """The text of a target, dedented, with its decorators; the seeded text if it is seeded."""
    if at in TEXTS:
        return TEXTS[at]
    node = find_definition(at)
    first = min([node.lineno, *(mark.lineno for mark in getattr(node, "decorator_list", []))])
    return textwrap.dedent("".join(module_tree(at.partition(":")[0])[0][first - 1 : node.end_lineno]))


def edited_text(edit: Edit) -> str:
    """The text at the edit's target with the edit made; ZooBroken unless its old text is there exactly once."""
    text = source_text(edit.at)
    count = text.count(edit.old)
    if count != 1:
        raise ZooBroken(f"{edit.at}: the text {edit.old!r} is there {count} times, expected once")
    changed = text.replace(edit.old, edit.new)
    try:
        same = ast.dump(ast.parse(changed)) == ast.dump(ast.parse(text))
    except SyntaxError as error:
        raise ZooBroken(f"{edit.at}: with {edit.new!r} it is no Python: {error}") from error
    if same:
        raise ZooBroken(f"{edit.at}: {edit.new!r} for {edit.old!r} changes nothing that runs")
    return changed


def live_function(at: str) -> FunctionType:
    """The plain function at a target, below its decorators."""
    module, _, path = at.partition(":")
    *owners, name = path.split(".")
    holder: Any = import_module(module)
    for owner in owners:
        holder = vars(holder)[owner]
    found = vars(holder).get(name)
    for wrapper in ("__func__", "fget", "func"):  # staticmethod and classmethod, property, cached_property
        if not isinstance(found, FunctionType):
            found = getattr(found, wrapper, found)
    function = unwrap(found) if callable(found) else found
    if not isinstance(function, FunctionType) or function.__qualname__ != path or function.__module__ != module:
        raise ZooBroken(f"{at}: expected a function that is defined there, found {found!r}")
    return function


def compiled(text: str, path: list[str], file: str) -> CodeType:
    """The code object of a function, compiled inside its classes so that super() and private names work."""
    for owner in reversed(path[:-1]):
        text = f"class {owner}:\n{textwrap.indent(text, '    ')}"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file  # for tracebacks
    code = compile(text, file, "exec", dont_inherit=True)
    for name in path:
        code = next(each for each in code.co_consts if isinstance(each, CodeType) and each.co_name == name)
    return code


def default_values(function: FunctionType, text: str) -> tuple[Any, Any]:
    """The default arguments for a function with this text; unchanged if the signature is."""
    node, before = ast.parse(text).body[0], ast.parse(source_text(target_of(function))).body[0]
    assert isinstance(node, ast.FunctionDef) and isinstance(before, ast.FunctionDef)
    if ast.dump(node.args) == ast.dump(before.args):
        return function.__defaults__, function.__kwdefaults__

    def value(expression: ast.expr) -> Any:
        return eval(compile(ast.Expression(expression), "<default>", "eval"), function.__globals__)

    named = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    return tuple(map(value, node.args.defaults)), {arg.arg: value(default) for arg, default in named if default is not None}


def target_of(function: FunctionType) -> str:
    """Where a function is defined, as edits name it."""
    return f"{function.__module__}:{function.__qualname__}"


def exchange_function(at: str, text: str) -> Callable[[], None]:
    """Give a function the code of this text; returns a function that undoes it."""
    function = live_function(at)
    before = function.__code__, function.__defaults__, function.__kwdefaults__
    file = f"<seeded {at} {len(linecache.cache)}>"
    code = compiled(text, at.partition(":")[2].split("."), file)
    if code.co_freevars != function.__code__.co_freevars:
        raise ZooBroken(f"{at}: the seeded function closes over {code.co_freevars}, not {function.__code__.co_freevars}")
    defaults = default_values(function, text)
    function.__code__, (function.__defaults__, function.__kwdefaults__) = code, defaults

    def undo() -> None:
        function.__code__, function.__defaults__, function.__kwdefaults__ = before
        linecache.cache.pop(file, None)

    return undo


def exchange_constant(at: str, text: str) -> Callable[[], None]:
    """Give a module's constant the value of this text in all modules; a dict or list is changed in place. Returns the undo."""
    module, _, name = at.partition(":")
    home = import_module(module)
    space = dict(vars(home))
    exec(compile(text, f"<seeded {at}>", "exec", dont_inherit=True), space)
    old, new = vars(home)[name], space[name]
    if isinstance(old, dict | list) and type(old) is type(new):
        before = old.copy()
        refill(old, new)
        return lambda: refill(old, before)
    holders = [each for each in runtime_modules() if name in vars(each) and vars(each)[name] is old]

    def put(value: object) -> None:
        for holder in holders:
            setattr(holder, name, value)

    put(new)
    return lambda: put(old)


def refill(container: Any, content: Any) -> None:
    """Replace the content of a dict or list."""
    container.clear()
    (container.update if isinstance(container, dict) else container.extend)(content)


def runtime_modules() -> list[ModuleType]:
    """The modules of the runtime that are loaded."""
    return [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "nanollama"]


def forget_cached() -> None:
    """Empty the runtime's caches of function results: values computed with a bug must not outlive it."""
    for module in runtime_modules():
        for value in list(vars(module).values()):
            if hasattr(value, "cache_clear") and hasattr(value, "cache_info"):
                value.cache_clear()
