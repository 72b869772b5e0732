"""Cut function bodies out of a module's text, put them back, or replace them. Text outside the bodies stays as it is, byte for
byte."""

import ast
import hashlib
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from conformance.katas.course import Kata

HEADER = "# kata "  # begins the first line of a learner's file


class Span(NamedTuple):
    """The lines first … end - 1 of a function's body, counted from 0, without its docstring."""

    first: int
    end: int
    indent: int


def functions(tree: ast.AST, owner: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions and methods of a module by qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield owner + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{owner}{node.name}.")


def span(source: str, function: ast.FunctionDef) -> Span:
    """The lines of a function's body. Comments above its first statement belong to it: they may hold the answer."""
    lines = source.splitlines()
    begin = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        first = begin.end_lineno or 0
    else:
        first = begin.lineno - 1
        while lines[first - 1].strip().startswith("#") or not lines[first - 1].strip():
            first -= 1
    end = function.end_lineno or 0
    if first >= end or begin.lineno == function.lineno:
        raise ValueError(f"{function.name} has no body on separate lines below its docstring")
    return Span(first, end, begin.col_offset)


def spans(source: str, names: Iterable[str]) -> dict[str, Span]:
    """The bodies of these functions by name; LookupError if one does not exist."""
    found = dict(functions(ast.parse(source)))
    if missing := [name for name in names if name not in found]:
        raise LookupError(f"there is no function {', '.join(missing)}")
    return {name: span(source, found[name]) for name in names}


def bodies(source: str, names: Iterable[str]) -> dict[str, str]:
    """The text of these functions' bodies, indented as in the source."""
    lines = source.splitlines(keepends=True)
    return {name: "".join(lines[place.first : place.end]) for name, place in spans(source, names).items()}


def replace(source: str, new: Mapping[str, str]) -> str:
    """The source with these bodies, already indented, in place of the present ones."""
    lines = source.splitlines(keepends=True)
    for name, place in sorted(spans(source, new).items(), key=lambda each: -each[1].first):
        lines[place.first : place.end] = [new[name]]
    return "".join(lines)


def fitted(source: str, name: str, text: str) -> str:
    """The body of the first function in a text, indented as that of `name` in the source."""
    function = next(iter(dict(functions(ast.parse(text)))))
    body = bodies(text, [function])[function]
    return textwrap.indent(textwrap.dedent(body), " " * spans(source, [name])[name].indent)


def stub(kata: Kata) -> str:
    """The learner's file without its first line: the module with its targets' bodies cut out."""
    source = kata.source
    gaps = {
        name: " " * place.indent + f'raise NotImplementedError("{name} is yours to write")\n'
        for name, place in spans(source, kata.targets).items()
    }
    return replace(source, gaps)


def fingerprint(kata: Kata) -> str:
    """A hash of the module that a learner's file was cut from."""
    return hashlib.sha256(kata.source.encode()).hexdigest()[:12]


def header(kata: Kata) -> str:
    """The first line of a learner's file."""
    place = kata.module.replace(".", "/")
    return f"{HEADER}{kata.name}, cut from {place}.py {fingerprint(kata)}; check it with: nanollama kata check {kata.name}\n"


def has_moved(kata: Kata, text: str) -> bool:
    """Whether the module has changed since a learner's file was cut from it."""
    first = text.partition("\n")[0]
    return first.startswith(HEADER) and fingerprint(kata) not in first


def without_header(text: str) -> str:
    """A learner's file without its header line."""
    return text.partition("\n")[2] if text.startswith(HEADER) else text


def function_text(source: str, name: str) -> str:
    """A whole function, from its decorators or `def` to its end."""
    node = dict(functions(ast.parse(source)))[name]
    first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
    return "".join(source.splitlines(keepends=True)[first - 1 : node.end_lineno])


def variants(kata: Kata) -> dict[str, dict[str, str]]:
    """The alternative answers: {how: {target: body}}. With several targets a function is named `target__how`."""
    text = kata.alternatives.read_text(encoding="utf-8")
    found: dict[str, dict[str, str]] = {}
    for name, _ in functions(ast.parse(text)):
        place, _, how = name.rpartition("__")
        target = next((each for each in kata.targets if each.replace(".", "_") == place), kata.targets[0])
        if place and target.replace(".", "_") != place:
            raise LookupError(f"{kata.alternatives.name}: {name} is for none of {', '.join(kata.targets)}")
        found.setdefault(how, {})[target] = fitted(kata.source, target, function_text(text, name))
    return found
