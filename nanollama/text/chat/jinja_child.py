"""Renders chat templates in a separate process: one JSON request per line on stdin, one JSON reply per line on stdout.

A chat template is a program that came with a checkpoint. Jinja2's sandbox keeps it from Python's internals and from files,
but not from endless loops or from filling the memory (`'a' * 10**10`, `|center(10**9)`, `9 ** 9 ** 9`, a list that holds
itself twice, forty times over ...). There are too many such ways to block one by one, so the operating system sets limits:
this process has a memory limit, and its parent (sandbox.py) kills it after a time limit.

It is run by its path and imports only jinja2 and the standard library, so that it starts in well under 0.1 s.
A template may use the functions that transformers offers (transformers 5, utils/chat_template_utils.py).
"""

import json
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_OUTPUT = 8 * 2**20
"""The longest rendered text in characters: more than the longest context there is."""

MAX_MESSAGE = 2000
"""The longest error message in characters: a template can write it too."""


def raise_exception(message: str) -> None:
    """Called by a template that refuses a conversation."""
    raise jinja2.TemplateError(message)


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without HTML escapes; Jinja2's filter of this name escapes `<`, `>`, `&` and `'`."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class SafeNamespace(Namespace):
    """Jinja2's namespace without names that begin with an underscore, the way to Python's internals."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace takes no name that begins with an underscore: {name!r}")
        super().__setitem__(name, value)


def namespace(*args: Any, **kwargs: Any) -> SafeNamespace:
    """`namespace(a=1)`: a mutable object that keeps its values after a loop's scope ends."""
    made = SafeNamespace()
    for name, value in dict(*args, **kwargs).items():
        made[name] = value
    return made


class DictMaker:
    """`dict(a=1)` and `dict.fromkeys(...)`, but not `dict.update(messages[0], ...)`, which the sandbox would let pass."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class GenerationTag(Extension):
    """`{% generation %} … {% endgeneration %}` marks the assistant's text for training; rendering ignores the tag."""

    tags = {"generation"}  # noqa: RUF012 - the name and type that jinja2 reads

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("render_body"), [], [], body).set_lineno(line)

    def render_body(self, caller: Callable[[], str]) -> str:
        return caller()


@lru_cache(maxsize=16)
def compile_template(source: str) -> jinja2.Template:
    """The template, compiled in an environment with transformers' functions, without a loader and without imports."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {"raise_exception": raise_exception, "dict": DictMaker(), "namespace": namespace}
    return environment.from_string(source)


def render(source: str, variables: dict[str, Any], now: str) -> str:
    """The rendered text for these variables; `now` is the time, in ISO format, that `strftime_now` formats."""
    return compile_template(source).render({"strftime_now": datetime.fromisoformat(now).strftime, **variables})


def line_of(error: BaseException) -> int | None:
    """The line of the template at which an error arose, None if unknown: jinja2 puts template lines into the traceback."""
    line = error.lineno if isinstance(error, jinja2.TemplateSyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The reply to one request: `{"text": ...}`, or `{"error": ..., "line": ...}`."""
    try:
        text = render(**request)
    except MemoryError as error:
        return {"error": "it needs more memory than a template is given", "line": line_of(error)}
    except Exception as error:  # a template can raise whatever Python can
        return {"error": (str(error) or type(error).__name__)[:MAX_MESSAGE], "line": line_of(error)}
    if len(text) > MAX_OUTPUT:
        return {"error": f"its text has {len(text):,} characters, more than the allowed {MAX_OUTPUT:,}", "line": None}
    return {"text": text}


def main(seconds: int, megabytes: int) -> None:
    """Answer requests until stdin closes, within limits that the operating system enforces (not on Windows)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    alarm = getattr(signal, "alarm", lambda seconds: 0)
    with suppress(ImportError, ValueError, OSError):  # Windows has no such limit, macOS refuses it
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (megabytes * 2**20, megabytes * 2**20))
    print("ready", flush=True)  # the parent's time limit may start now
    for line in sys.stdin:
        alarm(seconds)  # ends this process if its parent is gone
        print(json.dumps(answer(json.loads(line))), flush=True)
        alarm(0)


if __name__ == "__main__":
    main(seconds=int(sys.argv[1]), megabytes=int(sys.argv[2]))
