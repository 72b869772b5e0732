"""Chat templates: their variables, their rendering (against jinja2), and the limits of the sandbox."""

# mypy: disable-error-code="arg-type"
# tables mix good and bad arguments

import json
from datetime import datetime
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from conformance.checks import check
from conformance.checks.assertions import expect, expect_equal, expect_refused
from conformance.checks.generation.rigged import fresh
from nanollama.errors import NanollamaError
from nanollama.text.chat import jinja_child, sandbox

NOW = datetime(2024, 2, 29, 13, 5)
CHAT: list[dict[str, Any]] = [{"role": "system", "content": 'Be <brief> & "kind".'}, {"role": "user", "content": " Hi 🙂\n"}]
TEMPLATES = (
    "{% for m in messages %}\n  {% if m.role == 'user' %}\n[{{ m.content }}]\n  {% endif %}\n{% endfor %}\nend",
    "{%- for m in messages -%} {{ m['role'] | upper }}: {{ m['content'] | trim }} {% endfor -%} x",
    "{{ bos_token }}{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(messages[0].content) }}{{ messages | length }}{{ undefined_name }}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ loop.index }}{% break %}{% endfor %}\n\n",
    "    {# comment #}\n  {{ messages[-1].content[:3] }}{{ [1, 2] | join('-') }}"
    "{{ dict(a=1).a }}{{ dict.fromkeys('ab') | length }}",
)


def reference(source: str, variables: dict[str, Any]) -> str:
    """jinja2 itself, with the settings that transformers uses for chat templates."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.globals["dict"] = dict
    return environment.from_string(source).render(**variables)


def replied(source: str, **variables: Any) -> str:
    """The reply of the sandbox, computed in this process: the text, or "line: error"."""
    with fresh():
        reply = jinja_child.answer({"source": source, "variables": variables, "now": NOW.isoformat()})
    return str(reply["text"]) if "text" in reply else f"{reply.get('line')}: {reply['error']}"


@check("TMPL-001", "TMPL-002", "TMPL-003", area="chat_template")
def templates_render_as_jinja_with_trimmed_blocks() -> None:
    for source in TEMPLATES:
        variables = {"messages": CHAT, "bos_token": "<s>"}
        expect_equal(
            "text.chat.jinja_child.compile_template",
            replied(source, **variables),
            reference(source, variables),
            f"the text of {source!r}",
        )
    expect_equal(
        "text.chat.jinja_child.GenerationTag",
        replied("a{% generation %} b{{ x }}{% endgeneration %}c", x=1),
        "a b1c",
        "a generation block",
    )
    expect_equal("text.chat.jinja_child.render", replied("{{ strftime_now('%d %B %Y') }}"), "29 February 2024", "the date")
    expect_equal(
        "text.chat.jinja_child.answer",
        replied("a\n{{ raise_exception('no ' ~ x) }}", x="system"),
        "2: no system",
        "an error that a template raises",
    )
    expect_equal("text.chat.jinja_child.answer", replied("a\n\n{% if %}")[:2], "3:", "the line of a syntax error")
    expect(
        "text.chat.jinja_child.answer",
        len(replied("{{ raise_exception('x' * 9000) }}")) < 2100,
        "an error message of any length",
    )
    long = replied("{{ 'x' * 9000000 }}")
    expect("text.chat.jinja_child.answer", "9,000,000" in long and len(long) < 200, f"nine million characters: {long[:80]}")


@check("TMPL-001", "TMPL-002", "TMPL-004", area="chat_template")
def the_sandbox_renders_as_jinja_does() -> None:
    place, box = "text.chat.jinja_child.compile_template", sandbox.Sandbox()
    value = {"b": ["<a> & 'é'"], "a": 1}
    for source in TEMPLATES:
        variables = {"messages": CHAT, "bos_token": "<s>"}
        expect_equal(
            place, box.render(source, variables, NOW.isoformat()), reference(source, variables), f"the text of {source!r}"
        )
    for source, wanted in (
        ("a{% generation %} b{{ x.a }}{% endgeneration %}c", "a b1c"),
        ("{{ x | tojson }}", json.dumps(value, ensure_ascii=False)),
        ("{{ x | tojson(indent=2) }}", json.dumps(value, ensure_ascii=False, indent=2)),
        ("{{ strftime_now('%d.%m.%Y') }}", "29.02.2024"),
    ):
        expect_equal(place, box.render(source, {"x": value}, NOW.isoformat()), wanted, f"the text of {source!r}")
    for source in HOSTILE[:4]:
        try:
            got = box.render(source, {"messages": []}, NOW.isoformat())
        except NanollamaError:
            got = ""
        expect_equal(place, got.strip(), "", f"what {source} reaches")


@check("TMPL-004", area="chat_template")
def tojson_writes_json_for_models_not_for_html() -> None:
    value = {"b": ["<a> & 'é' \"q\" 🙂", None, True, 1.5], "a": {}}
    for options in ({}, {"indent": 4}, {"ensure_ascii": True}, {"sort_keys": True}, {"separators": (",", ":")}):
        wanted = json.dumps(value, **{"ensure_ascii": False, **options})
        expect_equal("text.chat.jinja_child.tojson", jinja_child.tojson(value, **options), wanted, f"JSON with {options}")
    expect_equal(
        "text.chat.jinja_child.compile_template",
        replied("{{ x | tojson }}", x=value),
        json.dumps(value, ensure_ascii=False),
        "the filter",
    )


HOSTILE = (
    "{{ ''.__class__.__mro__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__self__.__class__ }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(a=1) }}",
    "{{ messages[0].__class__ }}",
    "{% set messages[0].x = 1 %}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{{ namespace(__class__=1) }}",
    "{{ dict.update(messages[0], a=1) }}",
    "{{ '%s'.format.__globals__ }}",
    "{{ '{0.__class__}'.format(1) | string }}",
    "{% include 'x' %}",
    "{% import 'os' as os %}",
    "{{ lipsum.__globals__['os'] }}",
)


@check("TMPL-005", "TMPL-006", area="security")
def templates_reach_nothing_outside() -> None:
    place = "text.chat.jinja_child.compile_template"
    for source in HOSTILE:
        chat = [{"role": "user", "content": "x"}]
        with fresh():
            reply = jinja_child.answer({"source": source, "variables": {"messages": chat}, "now": NOW.isoformat()})
        harmless = "error" in reply or str(reply["text"]).strip() == ""
        expect(place, harmless, f"{source} gave {reply.get('text', '')!r:.80}")
        expect_equal(place, chat, [{"role": "user", "content": "x"}], f"the conversation after {source}")
    for source in HOSTILE[8:10]:
        expect("text.chat.jinja_child.SafeNamespace", "underscore" in replied(source), f"{source} was not refused")


@check("TMPL-006", "TMPL-007", area="security")
def templates_run_in_a_process_with_limits() -> None:
    place = "text.chat.sandbox.Sandbox"
    box = sandbox.Sandbox(seconds=0.6, megabytes=400)
    expect_equal(place, box.render("{{ x }} é", {"x": 1}, NOW.isoformat()), "1 é", "a text")
    expect_refused(
        place,
        lambda: box.render(
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", {}, NOW.isoformat()
        ),
        "0.6 s",
        "a loop without an end",
    )
    expect_equal(place, box.render("again", {}, NOW.isoformat()), "again", "a text after a process was ended")
    expect_refused(place, lambda: box.render("{{ ('x' * 10**9) | length }}", {}, NOW.isoformat()), "", "a string of a gigabyte")
    expect_refused(
        place, lambda: box.render("a\n{{ raise_exception('no') }}", {}, NOW.isoformat()), "line 2: no", "an error with its line"
    )
    expect_refused(place, lambda: box.render("x", {"n": 10**5000}, NOW.isoformat()), "passed", "a number of 5001 digits")
