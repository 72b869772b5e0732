"""Mechanical mutants: small systematic changes of the runtime's code, as zoo entries.

Real bugs cover known mistakes; mutants cover the rest. Each changes one operator, bound, constant, condition, pair of
arguments, statement or return. The score keeps a few per function, chosen by a hash of their names, so that a change in one
function does not affect the choice in others.
"""

import ast
import re
from collections.abc import Iterator
from hashlib import sha256
from itertools import pairwise
from typing import Any, NamedTuple

from conformance.score.zoo.entries import ZOO, Bug, Edit, read_toml
from conformance.score.zoo.live import module_tree, source_text

FORMATS = ("bits", "codebook", "fit", "format", "rowwise", "superblock", "ternary", "uniform")
SHORT_NAMES = {  # modules whose mutants the score uses; a module that moves keeps its short name, so that the choice stays
    **{"model.layers": "layers", "model.kv_cache": "cache", "model.rope": "rope", "generation.sampling": "sampling"},
    **{"text.detokenizer": "text.stream", **{f"quant.formats.{name}": f"quant.{name}" for name in FORMATS}},
    **{"quant.quant_tensor": "quant.stored", "quant.formats.tensor": "quant.tensor"},
}
MODULES = tuple(SHORT_NAMES)
KEPT = 2  # mutants per function
SWAPS: dict[type[ast.AST], tuple[str, str]] = {
    **{ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*")},
    **{ast.Mod: ("%", "//"), ast.Pow: ("**", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&")},
    **{ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"), ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">=")},
    **{ast.GtE: (">=", ">"), ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not")},
    **{ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"), ast.And: ("and", "or")},
    ast.Or: ("or", "and"),
}
NEGATED = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)  # swapping these negates the condition
PLACES = {  # other names that a check may give the place: modules of the model
    "model.layers": "norm|scores|attend|self_attn|proj|mlp|layers|lm_head|embed|logits",
    "model.kv_cache": "scores|attend|visible|generation.(loop|request|row)",
    "model.rope": "rotary|scores",
    "generation.sampling": "generation.(loop|request|row)",
    "text.detokenizer": "Detokenizer|StopStrings|generation.(loop|request|row)",
}


class Span(NamedTuple):
    """A range of a function's text, in bytes of UTF-8, and its replacement."""

    begin: int
    end: int
    new: str


def mutants(module: str) -> Iterator[Bug]:
    """Every mutant of one module ("model.layers"), in the order of its text."""
    short = SHORT_NAMES.get(module, module)
    for name in function_names(module_tree(f"nanollama.{module}")[1].body):
        at = f"nanollama.{module}:{name}"
        text = source_text(at)
        for number, span in enumerate(spans(text), 1):
            yield mutant(f"mutant-{short}-{name}-{number}", module, at, text, span)


def kept_mutants() -> list[Bug]:
    """The mutants that the score uses: KEPT per function, without those listed as equivalent."""
    equal = {entry["name"] for entry in read_toml(ZOO / "equivalent.toml", "mutant")}
    kept = []
    for module in MODULES:
        by_function: dict[str, list[Bug]] = {}
        for bug in mutants(module):
            by_function.setdefault(bug.edits[0].at, []).append(bug)
        for bugs in by_function.values():
            chosen = sorted(bugs, key=lambda bug: sha256(bug.name.encode()).digest())[:KEPT]
            kept += [bug for bug in bugs if bug in chosen and bug.name not in equal]
    return kept


def function_names(body: list[ast.stmt], owner: str = "") -> Iterator[str]:
    """Functions and methods by qualified name, without inner functions, protocols and custom operators."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not any("Protocol" in ast.unparse(base) for base in node.bases):
            yield from function_names(node.body, f"{owner}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not any("custom_op" in ast.unparse(m) for m in node.decorator_list):
            yield owner + node.name


def mutant(name: str, module: str, at: str, text: str, span: Span) -> Bug:
    """The zoo entry of one change: the changed lines, with preceding ones until the text is unique."""
    raw = text.encode()
    changed = (raw[: span.begin] + span.new.encode() + raw[span.end :]).decode()
    lines, others = text.splitlines(keepends=True), changed.splitlines(keepends=True)
    first = raw[: span.begin].count(b"\n")
    last = first + raw[span.begin : span.end].count(b"\n") + 1
    while text.count("".join(lines[first:last])) > 1:
        first -= 1
    edit = Edit(at, "".join(lines[first:last]), "".join(others[first : last + len(others) - len(lines)]))
    what = f"`{raw[span.begin : span.end].decode()}` is `{span.new}` in {at.partition(':')[2]}: {lines[last - 1].strip()}"
    names = module.rpartition(".")[2], SHORT_NAMES.get(module, module).partition(".")[0]  # "kv_cache" and "cache"
    place = "|".join(filter(None, [re.escape(names[0]), PLACES.get(module), names[1]]))
    return Bug(name, "semantic", place, "mutant", what, "mutants", (edit,))


def spans(text: str) -> Iterator[Span]:
    """Every change of one function's text that is valid Python, outside docstrings, annotations and error messages."""
    tree = ast.parse(text).body[0]
    assert isinstance(tree, ast.FunctionDef)
    offsets = [0]
    for line in text.encode().splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    original = ast.dump(ast.parse(text))
    body = tree.body[1:] if ast.get_docstring(tree) else tree.body
    for node in (inner for statement in body for inner in walk(statement)):
        for span in changes(node, Places(text.encode(), offsets), tree):
            changed = text.encode()[: span.begin] + span.new.encode() + text.encode()[span.end :]
            if parses(changed) and ast.dump(ast.parse(changed)) != original:
                yield span


def parses(source: bytes) -> bool:
    """Whether this is Python."""
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """A node and the nodes below it, in the order of the text, without errors, assertions and annotations."""
    is_super = isinstance(node, ast.Expr) and ast.unparse(node).startswith("super()")
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert) or is_super:
        return
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in ("annotation", "returns", "ctx"):
                yield from walk(child)


class Places:
    """The positions of nodes in a function's text."""

    def __init__(self, raw: bytes, offsets: list[int]) -> None:
        self.raw, self.offsets = raw, offsets

    def begin(self, node: Any) -> int:
        """The first byte of a node."""
        return self.offsets[node.lineno - 1] + int(node.col_offset)

    def end(self, node: Any) -> int:
        """The byte after a node."""
        return self.offsets[node.end_lineno - 1] + int(node.end_col_offset)

    def text(self, node: ast.AST) -> str:
        """The text of a node."""
        return self.raw[self.begin(node) : self.end(node)].decode()

    def whole(self, node: ast.AST, new: str) -> Span:
        """A node replaced."""
        return Span(self.begin(node), self.end(node), new)

    def operator(self, left: ast.AST, right: ast.AST, kind: ast.AST) -> Iterator[Span]:
        """The operator between two nodes replaced by its opposite."""
        if type(kind) in SWAPS:
            old, new = SWAPS[type(kind)]
            start = self.end(left)
            at = self.raw[start : self.begin(right)].find(old.encode())
            if at >= 0:
                yield Span(start + at, start + at + len(old), new)


def changes(node: ast.AST, places: Places, function: ast.FunctionDef) -> Iterator[Span]:
    """The possible changes of one node."""
    if isinstance(node, ast.BinOp):
        yield from places.operator(node.left, node.right, node.op)
    elif isinstance(node, ast.Compare):
        for (left, right), kind in zip(pairwise([node.left, *node.comparators]), node.ops, strict=True):
            yield from places.operator(left, right, kind)
    elif isinstance(node, ast.BoolOp) and len(node.values) == 2:
        yield from places.operator(node.values[0], node.values[1], node.op)
    elif isinstance(node, ast.UnaryOp):
        yield places.whole(node, places.text(node.operand))
    elif isinstance(node, ast.Constant):
        yield from constant_changes(node, places)
    elif isinstance(node, ast.IfExp) and not negates(node.test):
        yield places.whole(node, f"{places.text(node.orelse)} if {places.text(node.test)} else {places.text(node.body)}")
    elif isinstance(node, ast.If) and not negates(node.test):
        yield places.whole(node.test, f"not ({places.text(node.test)})")
    elif isinstance(node, ast.Call) and len(node.args) > 1 and type(node.args[0]) is type(node.args[1]) is not ast.Starred:
        first, second = node.args[:2]
        between = places.raw[places.end(first) : places.begin(second)].decode()
        swapped = places.text(second) + between + places.text(first)
        yield Span(places.begin(first), places.end(second), swapped)
    elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield places.whole(node, "pass")
    elif isinstance(node, ast.Return) and node.value is not None:
        yield from early_return(node, places, function)


def negates(test: ast.expr) -> bool:
    """Whether the swap of this condition's operator negates it already."""
    compares = isinstance(test, ast.Compare) and isinstance(test.ops[0], NEGATED)
    return compares or (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not))


def constant_changes(node: ast.Constant, places: Places) -> Iterator[Span]:
    """A number plus and minus one; the opposite boolean."""
    if isinstance(node.value, bool):
        yield places.whole(node, str(not node.value))
    elif isinstance(node.value, int | float):
        yield places.whole(node, repr(node.value + 1))
        yield places.whole(node, repr(node.value - 1))


def early_return(node: ast.Return, places: Places, function: ast.FunctionDef) -> Iterator[Span]:
    """Return the first argument unchanged, if it has the function's return type."""
    arguments = [argument for argument in function.args.args if argument.arg not in ("self", "cls")]
    if node.value and function.returns and arguments and arguments[0].annotation:
        same = ast.dump(function.returns) == ast.dump(arguments[0].annotation)
        if same and places.text(node.value) != arguments[0].arg:
            yield places.whole(node.value, arguments[0].arg)
