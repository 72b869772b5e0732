"""Hostile templates: none reaches Python or a file, none hangs, none fills the memory, and the next one still works."""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from nanollama.errors import NanollamaError
from nanollama.text.chat.sandbox import Sandbox

NOON = "2025-07-10T12:00:00"
UNSAFE = "unsafe|has no attribute|begins with an underscore|undefined"
ENDED = "did not finish within|more memory|Range too big|characters, more than|process that renders it ended|recursion"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    yield Sandbox(seconds=0.5, megabytes=512)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'].x }}",
        "{{ (''|attr('__class__')).x }}",
        "{{ '{0.__class__.x}'.format(1) }}",
        "{{ '{a.__class__.x}'.format_map({'a': 1}) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ raise_exception.__globals__.x }}",
        "{{ tojson.__globals__.x }}",
        "{{ strftime_now.__self__.x }}",
        "{{ namespace(__class__=1) }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{{ dict.mro() }}",
        "{{ dict.update(d, a=1) }}",
        "{{ d.update({'a': 1}) }}",
        "{{ [1].append(2) }}",
        "{{ self._TemplateReference__context.x }}",
        "{{ joiner.__call__.__func__.x }}",
    ],
)
def test_no_way_leads_to_the_internals_of_python(box: Sandbox, source: str) -> None:
    with pytest.raises(NanollamaError, match=UNSAFE):
        box.render(source, {"d": {}}, NOON)


@pytest.mark.parametrize(
    "source",
    ["{% include '/etc/hostname' %}", "{% extends 'x' %}", "{% import 'os' as os %}", "{% from 'os' import path %}"],
)
def test_no_other_file_is_loaded(box: Sandbox, source: str) -> None:
    with pytest.raises(NanollamaError, match="line 1: no loader"):
        box.render(source, {}, NOON)


DOUBLED = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
HOSTILE = [
    "{% for i in range(10**9) %}x{% endfor %}",
    "{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}",
    "{% for i in range(10**5) %}{% for j in range(10**5) if j < 0 %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
    "{{ 'a' * 10**10 }}",
    "{% set n = messages | length * 10**10 %}{{ 'a' * n }}",
    "{{ ([0] * 10**10) | length }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ 'a' | center(10**10) }}",
    "{{ 'a'.rjust(10**10) }}",
    "{{ 'a' | indent(10**10) }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%10000000000d' | format(1) }}",
    "{{ '{:10000000000}'.format(1) }}",
    "{{ '\t'.expandtabs(2 * 10**9) }}",
    "{{ (1).to_bytes(10**11, 'big') }}",
    "{{ [1] | tojson(indent=10**10) }}",
    "{{ [1] | batch(10**9, 1) | list | length }}",
    "{{ [1] | slice(10**9) | list | length }}",
    "{{ lipsum(10**7) }}",
    "{{ 'x'" + " | replace('', 'yyyyyyyy')" * 30 + " }}",
    "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] | join %}{% endfor %}",
    "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}{% endfor %}",
    DOUBLED + "{{ ns.x }}",
    DOUBLED + "{{ ns.x | tojson | length }}",
    DOUBLED + DOUBLED.replace("ns", "other") + "{{ ns.x == other.x }}",
    "{{ 'ab' * 5 * 10**6 }}",
    "{{ '\U0001f600' * 9 * 10**6 ~ messages }}",
    "{{ " + "(" * 10**5,
    "{{ " + "[" * 10**4 + "]" * 10**4 + " }}",
    "{{ 1" + " + 1" * 10**4 + " }}",
    "{% if true %}" * 10**3 + "{% endif %}" * 10**3,
]


@pytest.mark.parametrize("source", HOSTILE, ids=lambda source: source[:60])
def test_a_template_without_an_end_is_ended_and_the_next_one_works(box: Sandbox, source: str) -> None:
    with pytest.raises(NanollamaError, match=ENDED):
        box.render(source, {"messages": ["m"]}, NOON)
    assert box.render("{{ x }}", {"x": "fine"}, NOON) == "fine"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets one process read the limits of another")
def test_the_memory_of_the_process_is_limited_by_the_system() -> None:
    import resource

    box = Sandbox(megabytes=300)
    assert box.render("a", {}, NOON) == "a"
    assert box._process is not None
    assert resource.prlimit(box._process.pid, resource.RLIMIT_AS) == (300 * 2**20, 300 * 2**20)


def test_a_long_error_message_is_cut() -> None:
    with pytest.raises(NanollamaError) as caught:
        Sandbox().render("{{ raise_exception('x' * 10**6) }}", {}, NOON)
    assert len(str(caught.value)) < 3000


def test_text_of_any_kind_passes_through_unchanged(box: Sandbox) -> None:
    text = "\0\r\n\u2028\ud800 \U0010ffff é{{ x }}{% if %}\\u0041"
    assert box.render("{{ x }}", {"x": text}, NOON) == text


def test_threads_get_their_own_answers(box: Sandbox) -> None:
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        answers[number] = box.render("{{ x }}", {"x": number}, NOON)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: str(number) for number in range(20)}


class Interrupted(Exception):
    pass


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no signals between processes")
def test_after_an_interruption_no_stale_answer_comes() -> None:
    box = Sandbox(seconds=20)
    assert box.render("a", {}, NOON) == "a"

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(Interrupted):
            box.render("{% for i in range(10**5) %}{% for j in range(10**5) %}{% endfor %}{% endfor %}", {}, NOON)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert box.render("b", {}, NOON) == "b"


@pytest.mark.skipif(not hasattr(os, "getsid"), reason="this system has no sessions")
def test_ctrl_c_in_the_terminal_does_not_reach_the_process() -> None:
    box = Sandbox()
    assert box.render("a", {}, NOON) == "a"
    assert box._process is not None
    assert os.getsid(box._process.pid) != os.getsid(0)


def test_a_forked_copy_of_the_program_starts_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Sandbox()
    assert box.render("a", {}, NOON) == "a"
    first = box._process
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert box.render("b", {}, NOON) == "b"
    assert box._process is not first
    assert first is not None and first.poll() is None


def test_a_process_that_died_is_started_again() -> None:
    box = Sandbox()
    assert box.render("a", {}, NOON) == "a"
    assert box._process is not None
    box._process.kill()
    box._process.wait()
    assert box.render("b", {}, NOON) == "b"


def test_a_process_that_cannot_start_is_an_error_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(NanollamaError, match=r"can't be started by .*nowhere"):
        Sandbox().render("a", {}, NOON)
    monkeypatch.setattr(sys, "executable", shutil.which("true"))
    with pytest.raises(NanollamaError, match=r"ended at once; run .*jinja_child.py"):
        Sandbox().render("a", {}, NOON)


def test_the_process_ends_with_its_sandbox() -> None:
    box = Sandbox()
    assert box.render("a", {}, NOON) == "a"
    process = box._process
    assert process is not None
    del box
    assert process.poll() is not None


def test_the_process_imports_nothing_of_this_package() -> None:
    from nanollama.text.chat import sandbox

    source = sandbox.CHILD.read_text(encoding="utf-8")
    assert "import jinja2" in source
    assert "nanollama" not in source
