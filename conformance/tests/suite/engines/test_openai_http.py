"""The client: server-sent events by hand, errors in words, and what the official client reads from the rigged server."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from conformance.engines.engine import Unsupported
from conformance.engines.protocols.openai_http import ENGINE, OpenAIServer, Refused, Reply, events
from conformance.engines.registry import find_engine
from conformance.judging.wire.rigged.model import HashedModel
from conformance.judging.wire.rigged.server import RiggedServer, serving
from nanollama.errors import NanollamaError


@pytest.fixture
def url() -> Iterator[str]:
    with serving(RiggedServer(HashedModel())) as address:
        yield address


@contextmanager
def answering(data: bytes) -> Iterator[str]:
    """A server that says this once, whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(data)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        thread.join()


@pytest.mark.parametrize(
    ("body", "want"),
    [
        (b"data: a\n\n", ["a"]),
        (b"data: a\r\n\r\ndata: b\r\r", ["a", "b"]),
        (b"data:a\n\n", ["a"]),
        (b"data:  a\n\n", [" a"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b": ping\n\ndata: a\n\n", ["a"]),
        (b"event: x\nid: 3\ndata: a\n\n", ["a"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b"data: a\n\ndata: b", ["a"]),
        (b"data: a\n\ndata: b\n", ["a"]),
        ("data: é\n\n".encode(), ["é"]),
        (b"data\n\n", [""]),
        (b"\n\n\n", []),
    ],
)
def test_events_are_read_by_the_specification(body: bytes, want: list[str]) -> None:
    assert events(body) == want


def test_an_error_says_what_the_server_said() -> None:
    assert Reply(400, {}, b'{"error": {"message": "no"}}').message() == "no"
    assert Reply(400, {}, b'{"detail": "no"}').message() == '{"detail": "no"}'
    assert Reply(500, {}, b"Internal\n  \xff\n").message() == "Internal \ufffd"
    assert len(Reply(500, {}, b"a" * 5000).message()) == 150


@pytest.mark.parametrize("wrong", ["127.0.0.1:8000", "ftp://a/v1", "http://", "http://a:b/v1", ""])
def test_what_is_no_url_of_a_server_is_refused(wrong: str) -> None:
    with pytest.raises(NanollamaError, match=r"expected one such as http://127\.0\.0\.1:8000/v1"):
        OpenAIServer(wrong)


def test_an_engine_is_found_by_its_url(url: str) -> None:
    engine = find_engine(url)
    assert isinstance(engine, ENGINE)
    about = engine.about()
    assert about.name == f"rigged at {url}"
    assert about.levels == ("L0", "L1")
    assert about.notes == "offers completions and chat"


def test_fields_of_the_url_go_into_every_request(url: str) -> None:
    engine = OpenAIServer(f"{url}?top_p=0.5&stop=the")
    assert engine.url == url
    assert engine.fields == {"top_p": 0.5, "stop": "the"}
    with pytest.raises(Refused, match="there is no field 'top_k'"):
        OpenAIServer(f"{url}?top_k=0").complete({"prompt": "Once"})


def test_a_server_has_its_model_already(url: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="--model"):
        OpenAIServer(url).load(tmp_path)


def test_answers_and_streams_are_completed(url: str) -> None:
    request = {"prompt": "Once upon a time", "max_tokens": 5, "temperature": 0}
    [answer] = OpenAIServer(url).complete(request)
    chunks = OpenAIServer(url).complete({**request, "stream": True})
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == answer["choices"][0]["text"] != ""


def test_a_refusal_has_status_and_message(url: str) -> None:
    with pytest.raises(Refused) as caught:
        OpenAIServer(url).complete({"prompt": "Once", "n": 0})
    assert caught.value.status == 400
    assert "n is 0" in caught.value.message


@pytest.mark.parametrize(
    "data",
    [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", b"HTTP/1.1 200 OK\r\n" + b"a" * 70_000],
)
def test_whatever_breaks_on_the_way_is_a_broken_connection(data: bytes) -> None:
    with answering(data) as url, pytest.raises(ConnectionError):
        OpenAIServer(url).post("/completions", {"prompt": "Once"})


def test_a_server_without_a_list_of_models_has_a_default_one() -> None:
    with answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as url:
        assert OpenAIServer(url).model == "default"


def test_the_official_client_reads_the_rigged_server_as_the_probes_do(url: str) -> None:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        done = client.completions.create(model="rigged", prompt="Once upon a time", max_tokens=6, temperature=0, logprobs=2)
        chunks = client.completions.create(model="rigged", prompt="Once upon a time", max_tokens=6, temperature=0, stream=True)
        assert "".join(chunk.choices[0].text for chunk in chunks) == done.choices[0].text
        assert done.usage is not None and done.usage.completion_tokens == 6
        with pytest.raises(openai.BadRequestError, match="n is 0"):
            client.completions.create(model="rigged", prompt="Once", n=0)
