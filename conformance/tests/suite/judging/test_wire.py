"""The wire probes' own score: a server that is right passes them all, and every seeded bug is caught by its requirement."""

import json
from collections.abc import Iterator
from typing import ClassVar

import pytest

from conformance.engines.protocols.openai_http import OpenAIServer, Reply
from conformance.judging.wire.judge_server import all_probes, judge_server
from conformance.judging.wire.probe import CHAT, COMPLETIONS, SERVER, Endpoint, Undecided, Wrong
from conformance.judging.wire.probes.likelihoods import is_likely
from conformance.judging.wire.rigged.bugs import BUGS
from conformance.judging.wire.rigged.fields import Bad
from conformance.judging.wire.rigged.model import END, HashedModel
from conformance.judging.wire.rigged.server import RiggedServer, serving
from conformance.judging.wire.truth.ties import hold_same_or_tied
from conformance.requirements.requirement import load_requirements
from conformance.requirements.results import Result, Verdict
from nanollama.errors import NanollamaError

NOT_OFFERED = {"WIRE-036"}  # suffix, which the rigged server refuses by name


def judged(server: RiggedServer, *only: str) -> list[Result]:
    with serving(server) as url:
        return judge_server(OpenAIServer(url), only=only)


def test_a_server_that_is_right_passes_everything_that_needs_no_checkpoint() -> None:
    results = judged(RiggedServer(HashedModel()))
    assert [result for result in results if not result.verdict.good or result.verdict is Verdict.NOTE] == []
    refused = {r.requirement for r in results if r.verdict is Verdict.UNSUPPORTED and "no checkpoint" not in r.detail}
    assert refused == NOT_OFFERED
    assert len([result for result in results if result.verdict is Verdict.PASS]) >= 120
    assert all(result.compared > 0 for result in results if result.verdict is Verdict.PASS)


@pytest.mark.parametrize("name", BUGS)
def test_a_seeded_bug_is_caught_by_its_requirement(name: str) -> None:
    server, requirement = BUGS[name]
    verdicts = {result.verdict for result in judged(server(HashedModel()), requirement)}
    assert verdicts & {Verdict.FAIL, Verdict.ERROR}


def test_sixty_bugs_of_servers_are_seeded_and_most_requirements_have_one() -> None:
    assert len(BUGS) >= 60
    assert len({requirement for _, requirement in BUGS.values()}) >= 45


def test_every_probe_names_a_requirement_and_says_whom_it_asks() -> None:
    requirements = load_requirements()
    for probe in all_probes():
        assert probe.requirement in requirements, probe.name
        assert probe.case in (COMPLETIONS, CHAT, SERVER)


def test_every_requirement_of_the_wire_has_a_probe() -> None:
    judged_ones = {probe.requirement for probe in all_probes()}
    assert [id for id in load_requirements() if id.startswith("WIRE-") and id not in judged_ones] == []


def test_an_endpoint_that_is_not_there_is_unsupported_and_the_other_is_judged() -> None:
    class OnlyChat(RiggedServer):
        def respond(self, method: str, path: str, body: bytes) -> tuple[int, str, Iterator[bytes]]:
            return super().respond(method, "/gone" if path == "/v1/completions" else path, body)

    results = judged(OnlyChat(HashedModel()), "STOP-001", "WIRE-001")
    assert {(r.case, r.requirement): r.verdict for r in results} == {
        (SERVER, "WIRE-001"): Verdict.PASS,
        (COMPLETIONS, "STOP-001"): Verdict.UNSUPPORTED,
        (CHAT, "STOP-001"): Verdict.PASS,
    }
    assert "404" in next(r.detail for r in results if r.case == COMPLETIONS)


def test_a_server_that_offers_no_text_at_all_passes_nothing() -> None:
    class Silent(RiggedServer):
        def respond(self, method: str, path: str, body: bytes) -> tuple[int, str, Iterator[bytes]]:
            return super().respond(method, "/gone", body)

    assert {result.verdict for result in judged(Silent(HashedModel()))} == {Verdict.UNSUPPORTED}


def test_a_feature_that_is_refused_is_unsupported_with_the_servers_words() -> None:
    class NoSeeds(RiggedServer):
        def check(self, request: object, chat: bool) -> None:
            super().check({name: v for name, v in request.items() if name != "nope"}, chat)  # type: ignore[attr-defined]

        def read(self, body: bytes, chat: bool) -> dict[str, object]:
            return super().read(body.replace(b'"n"', b'"no n here"'), chat)

    [result, _] = judged(NoSeeds(HashedModel()), "WIRE-032")
    assert result.verdict is Verdict.UNSUPPORTED
    assert result.detail == "it refuses: HTTP 400: there is no field 'no n here'"


def test_a_server_that_breaks_is_an_error_with_what_it_said() -> None:
    class Breaks(RiggedServer):
        def answer(self, request: dict[str, object]) -> dict[str, object]:
            raise ZeroDivisionError

    results = judged(Breaks(HashedModel()), "STOP-001")
    assert {result.verdict for result in results} == {Verdict.ERROR}
    assert "the connection broke" in results[0].detail


def test_a_server_that_a_probe_breaks_for_good_is_judged_no_further() -> None:
    class Fragile(RiggedServer):
        def check(self, request: object, chat: bool) -> None:
            assert isinstance(request, dict)
            if isinstance(request.get("prompt"), list):
                self.respond = lambda *_: (503, "text/plain", iter([b"dead"]))  # type: ignore[method-assign]
                raise Bad(500, "assertion failed")
            super().check(request, chat)

    results = judged(Fragile(HashedModel()), "WIRE-007", "WIRE-061", "LIMT-006")
    by_requirement = {r.requirement: r for r in results if r.case == COMPLETIONS}
    assert {id: r.verdict for id, r in by_requirement.items()} == {
        "LIMT-006": Verdict.PASS,
        "WIRE-007": Verdict.ERROR,
        "WIRE-061": Verdict.ERROR,
    }
    blamed = "since wire.together.every_prompt_of_a_list_is_answered_in_order the server answers nothing more: HTTP 503: dead"
    assert by_requirement["WIRE-061"].detail == blamed
    assert by_requirement["WIRE-007"].detail.endswith(f"; {blamed}")


def test_what_is_unspecified_is_noted_and_never_failed() -> None:
    class Lenient(RiggedServer):
        def check(self, request: object, chat: bool) -> None:
            assert isinstance(request, dict)
            super().check({name: value for name, value in request.items() if name != "temprature"}, chat)

    results = judged(Lenient(HashedModel()), "WIRE-037")
    assert {result.verdict for result in results} == {Verdict.NOTE}
    assert "temprature" in results[0].detail


def test_a_server_that_is_not_there_is_an_error_in_words() -> None:
    with serving(RiggedServer(HashedModel())) as url:
        pass
    with pytest.raises(NanollamaError, match="does not answer"):
        judge_server(OpenAIServer(url))


class Scripted(OpenAIServer):
    """Always the answer "ab": after "a" the tokens b and c are tied, at the beginning a is much likelier than x."""

    logprobs: ClassVar[object] = {
        "tokens": ["a", "b"],
        "token_logprobs": [-0.1, -0.7],
        "top_logprobs": [{"a": -0.1, "x": -3.0}, {"b": -0.7, "c": -0.71}],
        "text_offset": [0, 1],
    }

    def exchange(self, method: str, path: str, body: bytes | None = None) -> Reply:
        choice = {"index": 0, "text": "ab", "finish_reason": "length", "logprobs": self.logprobs}
        return Reply(200, {}, json.dumps({"choices": [choice]}).encode())


def test_answers_may_part_at_a_tie_and_nowhere_else() -> None:
    end = Endpoint(Scripted("http://127.0.0.1:1/v1"), COMPLETIONS)
    hold_same_or_tied(end, "a prompt", "ab", "ab", "the answer")
    assert (end.tally.compared, end.tally.excused) == (1, 0)
    hold_same_or_tied(end, "a prompt", "ac", "ab", "the answer")
    assert (end.tally.compared, end.tally.excused) == (2, 1)
    with pytest.raises(Wrong, match="the answer is 'xb'; expected 'ab'"):
        hold_same_or_tied(end, "a prompt", "xb", "ab", "the answer")


def test_without_log_probabilities_a_tie_can_not_be_seen() -> None:
    class Mute(Scripted):
        logprobs = None

    with pytest.raises(Undecided, match="a tie can't be seen"):
        hold_same_or_tied(Endpoint(Mute("http://127.0.0.1:1/v1"), COMPLETIONS), "a prompt", "ac", "ab", "the answer")


def test_how_likely_counts_are_by_hand() -> None:
    assert is_likely(5, 10, 0.5)
    assert is_likely(0, 13, 0.5)  # 1 in 8192
    assert not is_likely(0, 15, 0.5)  # 1 in 32768
    assert not is_likely(20, 20, 0.5)
    assert is_likely(20, 20, 0.99)


def test_the_models_characters_of_several_bytes_come_byte_by_byte() -> None:
    model = HashedModel()
    assert [model.piece(id) for id in model.encode("Once upon é")] == [b"Once", b" upon", b" ", b"\xc3", b"\xa9"]
    assert max(range(300), key=lambda id: model.scores([5, 1 + 0xC3])[id]) == 1 + 0xA9
    assert model.piece(END) == b""
