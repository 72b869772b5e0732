"""The house rules that a machine can check: what the runtime may import, how long its parts may be, what it never does."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from conformance import ROOT

FILES = sorted((ROOT / "nanollama").rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
ALLOWED = {"torch", "safetensors", "tokenizers", "jinja2", "huggingface_hub", "nanollama"}
LONGEST_FUNCTION, LONGEST_FILE = 60, 300  # lines; the aim is 25 and 250

EACH = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def module_name(path: Path) -> str:
    """nanollama/text/detokenizer.py → nanollama.text.detokenizer"""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def modules_of(package: str) -> dict[str, Path]:
    """The modules of a package by name; tests and all."""
    return {module_name(path): path for path in sorted((ROOT / package).rglob("*.py"))}


MODULES = modules_of("nanollama")
ALL = MODULES | modules_of("conformance")


def imported(node: ast.AST) -> list[str]:
    """The modules that a statement names; `from a import b` may mean the module a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide what is imported"
        return [f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in ALL else str(node.module) for a in node.names]
    return []


def when_imported(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported: not those inside functions or under TYPE_CHECKING."""
    for statement in statements:
        yield statement
        if isinstance(statement, (ast.If, ast.Try, ast.With, ast.ClassDef)) and "TYPE_CHECKING" not in ast.dump(statement):
            yield from when_imported([s for s in ast.iter_child_nodes(statement) if isinstance(s, ast.stmt)])


def calls(tree: ast.AST) -> list[str]:
    """The dotted names of everything that is called."""
    return [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]


# --- imports


def test_there_are_files_to_check() -> None:
    assert len(FILES) > 20
    assert "nanollama.model.layers" in MODULES


@EACH
def test_the_runtime_imports_its_own_dependencies_and_nothing_else(path: Path) -> None:
    named = {name.partition(".")[0] for node in ast.walk(TREES[path]) for name in imported(node)}  # in functions too
    assert named <= ALLOWED | set(sys.stdlib_module_names)


@EACH
def test_a_computed_import_stays_within_the_package(path: Path) -> None:
    assert not {"__import__", "importlib.import_module", "runpy.run_module"} & set(calls(TREES[path]))
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "import_module":
            assert ast.unparse(node.args[0]).startswith(("f'nanollama.", "'nanollama."))


# The order of the rooms, lowest first: a room may import its own modules and those of rooms further up in this list. Rooms in
# one line may not import each other. A module named in full is a unit of its own, above the room that it lies in.
RUNTIME = """
    errors
    quant.formats
    kernels
    model quant
    checkpoint
    text
    checkpoint.export
    generation
    lm
    serve train
    cli
    """
SUITE = """
    requirements
    models
    truth
    fuzz numerics
    verify
    engines
    checks
    score
    numerics.acceptance katas
    report
    diagnosis
    judging
    """


def ranks(order: str, package: str) -> dict[str, int]:
    """The rank of every unit: "nanollama.quant.formats" → 1."""
    return {f"{package}.{unit}": rank for rank, line in enumerate(order.split("\n")) for unit in line.split()}


def unit_of(module: str, units: dict[str, int]) -> str | None:
    """The innermost unit that a module belongs to; None for the entry points (`__main__`), which may compose anything."""
    parts = [] if module.endswith(".__main__") else module.split(".")
    return next((name for n in range(len(parts), 1, -1) if (name := ".".join(parts[:n])) in units), None)


def wrong_ways(trees: dict[str, ast.Module], units: dict[str, int]) -> list[str]:
    """The imports that don't point down the order of the rooms, function bodies and type annotations included."""
    found = set()
    for name, tree in trees.items():
        mine = unit_of(name, units)
        for other in (other for node in ast.walk(tree) for other in imported(node)):
            theirs = unit_of(other, units)
            if mine and theirs and mine != theirs and units[theirs] >= units[mine]:
                found.add(f"{name} imports {other}")
    return sorted(found)


@pytest.mark.parametrize(("package", "order"), [("nanollama", RUNTIME), ("conformance", SUITE)])
def test_imports_point_one_way_through_the_rooms(package: str, order: str) -> None:
    units = ranks(order, package)
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in modules_of(package).items()}
    trees = {name: tree for name, tree in trees.items() if not name.startswith("conformance.tests")}
    lost = [name for name in trees if name.count(".") > 1 and unit_of(name.removesuffix(".__main__"), units) is None]
    assert not lost, "modules in a room that the order does not have"
    assert wrong_ways(trees, units) == []


def test_an_import_against_the_order_is_seen_wherever_it_stands() -> None:
    units = ranks("\n a\n b.c\n b d\n", "nanollama")
    assert units == {"nanollama.a": 1, "nanollama.b.c": 2, "nanollama.b": 3, "nanollama.d": 3}
    assert unit_of("nanollama.b.c.x", units) == "nanollama.b.c" and unit_of("nanollama.b.y", units) == "nanollama.b"
    code = "from nanollama.d.y import z\ndef f():\n    import nanollama.a.x\n    from nanollama.b.c import v"
    assert wrong_ways({"nanollama.b.w": ast.parse(code)}, units) == ["nanollama.b.w imports nanollama.d.y"]
    assert wrong_ways({"nanollama.a.w": ast.parse(code)}, units) == [
        "nanollama.a.w imports nanollama.b.c",
        "nanollama.a.w imports nanollama.d.y",
    ]


def test_nobody_but_the_entry_point_imports_the_command_line() -> None:
    users = {
        name for name, path in MODULES.items() for node in ast.walk(TREES[path]) for other in imported(node) if ".cli" in other
    }
    assert {name for name in users if not name.startswith("nanollama.cli")} == {"nanollama.__main__"}


# --- rooms


LARGEST_ROOM, LARGEST_RUNTIME, LARGEST_SUITE = 15, 13, 17
ROOMS = sorted({path.parent for package in ("nanollama", "conformance") for path in modules_of(package).values()})
DATA = (".toml", ".json", ".md", ".png", ".svg", ".html", ".css", ".js", ".txt", ".typed")


def entries(room: Path) -> list[str]:
    """The modules and rooms of a room; data files apart."""
    return sorted(p.name for p in room.iterdir() if (any(p.rglob("*.py")) if p.is_dir() else p.suffix not in DATA))


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(ROOT)))
def test_every_room_is_small_and_says_what_belongs_there(room: Path) -> None:
    largest = {ROOT / "nanollama": LARGEST_RUNTIME, ROOT / "conformance": LARGEST_SUITE}.get(room, LARGEST_ROOM)
    assert len(entries(room)) <= largest, entries(room)
    if not room.is_relative_to(ROOT / "conformance" / "tests"):
        assert ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))), (
            f"{room} says nothing of itself"
        )


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {
        name: {other for s in when_imported(TREES[path].body) for other in imported(s) if other in MODULES}
        for name, path in MODULES.items()
    }
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"circle of imports: {' → '.join(error.args[1])}")


def test_importing_all_of_nanollama_loads_no_oracle_and_no_suite(tmp_path: Path) -> None:
    code = f"import importlib, sys\nfor name in {sorted(MODULES)}: importlib.import_module(name)\nprint(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert {"nanollama", "torch"} <= loaded
    assert not loaded & {"transformers", "sentencepiece", "tiktoken", "conformance", "pytest", "hypothesis"}


# --- size and shape


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method."""
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


@EACH
def test_every_function_fits_on_a_screen(path: Path) -> None:
    long = {f.name: n for f in functions(TREES[path]) if (n := (f.end_lineno or 0) - f.lineno + 1) > LONGEST_FUNCTION}
    assert not long


@EACH
def test_every_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@EACH
def test_every_module_and_every_class_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(TREES[path]) or not path.stat().st_size
    classes = [node for node in TREES[path].body if isinstance(node, ast.ClassDef)]
    assert not [node.name for node in classes if not ast.get_docstring(node)]


@EACH
def test_no_file_is_called_utils_or_helpers(path: Path) -> None:
    assert not {part.strip("_") for part in path.relative_to(ROOT).with_suffix("").parts} & {
        "util",
        "utils",
        "helper",
        "helpers",
    }


# --- what the runtime never does


@EACH
def test_nothing_is_unpickled_evaluated_or_handed_to_a_shell(path: Path) -> None:
    forbidden = {"eval", "exec", "torch.load", "pickle.load", "pickle.loads", "os.system", "subprocess.getoutput"}
    assert not forbidden & set(calls(TREES[path]))
    assert "shell=True" not in ast.unparse(TREES[path])


@EACH
def test_templates_are_rendered_in_the_immutable_sandbox_only(path: Path) -> None:
    environments = [name for name in calls(TREES[path]) if name.endswith(("Environment", "Template")) and "." in name]
    bare = [name for name in calls(TREES[path]) if name in ("Environment", "NativeEnvironment", "SandboxedEnvironment")]
    assert not bare
    assert not [name for name in environments if name.startswith("jinja2.") and "ImmutableSandboxed" not in name]


@EACH
def test_assert_says_what_a_type_checker_cannot_see_and_checks_no_input(path: Path) -> None:  # python -O removes it
    told = [ast.unparse(node.test) for node in ast.walk(TREES[path]) if isinstance(node, ast.Assert)]
    assert not [text for text in told if not all(part.endswith(" is not None") for part in text.split(" and "))]


@EACH
def test_no_error_is_swallowed_whatever_it_is(path: Path) -> None:
    bare = [n.lineno for n in ast.walk(TREES[path]) if isinstance(n, ast.ExceptHandler) and n.type is None]
    assert not bare


# --- precision

# Where the data path may name a precision: (file, function) → why.
FLOAT32 = {("model/layers.py", "at_least_float32"): "the one definition of “at least float32”, by promote_types"}
DATA_PATH = (
    "model/layers.py",
    "model/transformer.py",
    "model/rope.py",
    "model/kv_cache.py",
    "kernels/linear.py",
    "kernels/cpu.py",
)
NARROW = {"float32", "float", "half", "bfloat16", "float16"}


def names_a_precision(node: ast.AST) -> bool:
    """torch.float32 and its kin as a value, or x.float() and its kin as a method."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args:
        return node.func.attr in NARROW - {"float32"}
    return isinstance(node, ast.Attribute) and node.attr in NARROW and ast.unparse(node.value) == "torch"


@pytest.mark.parametrize("file", DATA_PATH)
def test_the_data_path_names_no_precision_so_that_float64_stays_float64(file: str) -> None:
    found = set()
    for function in functions(TREES[ROOT / "nanollama" / file]):
        if any(names_a_precision(node) for node in ast.walk(function)):
            found.add((file, function.name))
    # a kernel chosen for bfloat16 compares dtypes, it does not convert
    found -= {(file, f.name) for f in functions(TREES[ROOT / "nanollama" / file]) if only_compares(f)}
    assert found == {place for place in FLOAT32 if place[0] == file}


def only_compares(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function names a precision in comparisons (x.dtype is torch.bfloat16) and nowhere else."""
    compared = {id(n) for c in ast.walk(function) if isinstance(c, ast.Compare) for n in ast.walk(c)}
    return all(id(node) in compared for node in ast.walk(function) if names_a_precision(node))


# --- the rules themselves


def test_the_checks_see_what_is_hidden_in_a_function_and_pass_over_what_only_types_need() -> None:
    hidden = ast.parse("def f():\n    import transformers.utils\n    class C:\n        from numpy import linalg")
    assert [name for node in ast.walk(hidden) for name in imported(node)] == ["transformers.utils", "numpy"]
    typed = ast.parse(
        "if TYPE_CHECKING:\n    import a\nelse:\n    import b\ntry:\n    import c\nexcept E:\n    pass\ndef f():\n    import d"
    )
    assert [name for s in when_imported(typed.body) for name in imported(s)] == ["c"]


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("x.to(torch.float32)", True),
        ("x.float()", True),
        ("torch.zeros(3, dtype=torch.half)", True),
        ("float(x)", False),
        ("x.to(at_least_float32(x.dtype))", False),
        ("torch.float64", False),
    ],
)
def test_the_check_for_precisions_knows_them_by_either_name(code: str, named: bool) -> None:
    assert any(names_a_precision(node) for node in ast.walk(ast.parse(code))) is named
