"""Files that must not pass, whatever they print, raise, end or patch: they test `check` itself."""

import ast
import re

from conformance.katas.checking.running import tests_module
from conformance.katas.course import Kata
from conformance.katas.stub import functions, replace, spans


def with_body(kata: Kata, *lines: str) -> str:
    """The kata's module with these lines as the body of its first target."""
    target = kata.targets[0]
    indent = " " * spans(kata.source, [target])[target].indent
    return replace(kata.source, {target: "".join(f"{indent}{line}\n" for line in lines)})


def unchanged(kata: Kata) -> str:
    """A wrong answer: the first target returns its first argument."""
    arguments = dict(functions(ast.parse(kata.source)))[kata.targets[0]].args
    names = [each.arg for each in [*arguments.args, *arguments.kwonlyargs] if each.arg not in ("self", "cls")]
    return with_body(kata, f"return {names[0] if names else None}")


def canaries(kata: Kata) -> dict[str, str]:
    """Files by what is wrong with them."""
    name, wrong = kata.targets[0].rpartition(".")[2], unchanged(kata)
    tests, compare = tests_module(kata), "import conformance.katas.testing.compare as c"
    return {
        "empty": "",
        "not Python": kata.source + "\ndef (:\n",
        "without a return": with_body(kata, "pass"),
        "its argument unchanged": wrong,
        "renamed": re.sub(rf"^( *)def {name}\(", r"\1def renamed(", kata.source, flags=re.MULTILINE),
        "ends the program when imported": "import sys\nsys.exit(0)\n" + kata.source,
        "ends the process when imported": "import os\nos._exit(0)\n" + kata.source,
        "ends the program when called": with_body(kata, "raise SystemExit(0)"),
        "ends the process when called": with_body(kata, "import os", "os._exit(0)"),
        "says that it passed": with_body(kata, f"print('PASSED all {len(kata.test_names)} tests')"),
        "patches the comparison": f"{wrong}\n{compare}\nc.answers = c.agree = c.refuses = print\n",
        "patches the comparison when called": with_body(kata, compare, "c.wrong_form = c.wrong_value = lambda *_: None"),
        "patches the tests": f"{wrong}\nimport sys, types\nsys.modules['{tests}'] = types.ModuleType('{tests}')\n",
        "patches torch": f"{wrong}\nimport torch\ntorch.Tensor.__eq__ = torch.Tensor.isfinite\n",
        "is not the one that is called": f"{kata.source}\n{kata.targets[0]} = print\n",
    }
