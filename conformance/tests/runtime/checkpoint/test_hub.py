"""From a name to a local path, with the real `huggingface_hub` client talking to a small hub on 127.0.0.1."""

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest

from conformance.tests.fakes.hub import COMMIT, FakeHub, serve
from nanollama.checkpoint.hub import resolve
from nanollama.errors import NanollamaError

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
LOADABLE = {"config.json": b"{}", "tokenizer.json": b"[]", SHARDS[0]: b"first", SHARDS[1]: b"second"}
REST = {
    "pytorch_model.bin": b"a pickle",
    "consolidated.safetensors": b"the same weights again",
    "onnx/model.safetensors": b"the same weights again",
    "original/config.json": b"{}",
    "README.md": b"# model",
}
CHUNK = 10 * 2**20  # the client writes, and so can resume, in pieces of this size


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that holds org/name, and a client that talks to it instead of the public one."""
    with serve(FakeHub("org/name", LOADABLE | REST)) as server:
        client = partial(huggingface_hub.snapshot_download, endpoint=server.endpoint)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", client)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_an_existing_path_is_returned_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "model.gguf").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve(tmp_path) == tmp_path
    assert resolve("model.gguf") == Path("model.gguf")
    assert resolve("org/name") == Path("org/name"), "a local folder comes before a hub id"
    assert resolve("~/model.gguf") == tmp_path / "model.gguf"


NO_PATH_AND_NO_ID = [
    *("", "./llama", "/no/such/model", "~nobody/x", "llama", "a/b/c", "../name", "org/name/", "@main", "org/na me"),
    *("org/..", "org/name@", "org/name@../../x", "org/weights.gguf", "org/model.safetensors", "x" * 5000, "a\0b/c"),
]


@pytest.mark.parametrize("source", NO_PATH_AND_NO_ID, ids=range(len(NO_PATH_AND_NO_ID)))
def test_what_is_neither_a_path_nor_an_id_never_reaches_the_network(source: str, hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match="does not exist: expected a local path or a hub id") as caught:
        resolve(source, cache_dir=tmp_path)
    assert not hub.requests and len(str(caught.value)) < 400


def test_a_revision_that_does_not_fit_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(NanollamaError, match="local path, which has no revision 'main'"):
        resolve(tmp_path, revision="main")
    for source, revision in (("org/name@main", "other"), ("org/name", "../../x"), ("org/name", "")):
        with pytest.raises(NanollamaError, match=r"at revision .* does not exist"):
            resolve(source, revision=revision, cache_dir=tmp_path)
    assert not hub.requests


def test_only_what_the_loader_reads_is_downloaded(hub: FakeHub, tmp_path: Path) -> None:
    assert contents(resolve("org/name", cache_dir=tmp_path)) == LOADABLE
    assert {name for name, _ in hub.gets()} == set(LOADABLE)


def test_a_second_call_downloads_nothing(hub: FakeHub, tmp_path: Path) -> None:
    folder = resolve("org/name", cache_dir=tmp_path)
    hub.requests.clear()
    assert resolve("org/name@main", cache_dir=tmp_path) == folder
    assert resolve("org/name", revision=COMMIT, cache_dir=tmp_path) == folder
    assert not hub.gets()


def test_a_connection_cut_in_a_file_is_resumed_where_it_was(hub: FakeHub, tmp_path: Path) -> None:
    body = random.Random(0).randbytes(2 * CHUNK)
    hub.files = LOADABLE | {SHARDS[0]: body}
    hub.cut_once = {SHARDS[0]: CHUNK + 1000}
    assert contents(resolve("org/name", cache_dir=tmp_path)) == hub.files
    assert [span for name, span in hub.gets() if name == SHARDS[0]] == ["", f"bytes={CHUNK}-"]


def test_a_download_that_failed_continues_with_the_missing_files(hub: FakeHub, tmp_path: Path) -> None:
    hub.broken = {SHARDS[1]}
    with pytest.raises(NanollamaError, match=r"downloading org/name failed .*500.* try again, the files"):
        resolve("org/name", cache_dir=tmp_path)
    hub.broken = set()
    kept = {name for name, _ in hub.gets()} - {SHARDS[1]}
    hub.requests.clear()
    assert contents(resolve("org/name", cache_dir=tmp_path)) == LOADABLE
    assert kept and SHARDS[1] in {name for name, _ in hub.gets()}
    on_second_try = [name for name, _ in hub.gets()]
    assert len(on_second_try) == len(set(on_second_try)) < len(LOADABLE)


def test_what_is_cached_works_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download = huggingface_hub.snapshot_download
    with serve(FakeHub("org/name", LOADABLE)) as server:
        monkeypatch.setattr(huggingface_hub, "snapshot_download", partial(download, endpoint=server.endpoint))
        folder = resolve("org/name", cache_dir=tmp_path)
        server.requests.clear()
        assert resolve("org/name", cache_dir=tmp_path, offline=True) == folder
        assert not server.requests, "offline=True asks nobody"
    assert resolve("org/name", cache_dir=tmp_path) == folder, "the server is gone"


def test_what_is_not_cached_says_how_to_get_it(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advice = "run `hf download org/name --local-dir FOLDER` on a connected machine and give that folder"
    with pytest.raises(NanollamaError, match=f"offline mode is on .*{advice}.*cache: {tmp_path}"):
        resolve("org/name", cache_dir=tmp_path, offline=True)
    assert not hub.requests
    hub.error = (503, "")
    with pytest.raises(NanollamaError, match=f"the hub gave no answer .*503.*{advice}"):
        resolve("org/name", cache_dir=tmp_path)
    with serve(FakeHub("org/name", {})) as gone:
        pass
    client = partial(huggingface_hub.snapshot_download, endpoint=gone.endpoint)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", client)
    with pytest.raises(NanollamaError, match=f"the hub gave no answer .*refused.*{advice}"):
        resolve("org/name", cache_dir=tmp_path)


def test_a_download_cached_in_part_is_not_taken_for_the_model(hub: FakeHub, tmp_path: Path) -> None:
    hub.broken = {SHARDS[1]}
    for offline in (False, True):
        with pytest.raises(NanollamaError, match="not completely in the cache" if offline else "downloading org/name failed"):
            resolve("org/name", cache_dir=tmp_path, offline=offline)


ANSWERS = {
    (404, "RepoNotFound"): "org/name is neither a local path nor a model on the hub: check the name",
    (401, "RepoNotFound"): "org/name is neither a local path nor a model on the hub: .* if it is private",
    (403, "GatedRepo"): "org/name is gated: accept its terms .* HF_TOKEN",
    (404, "RevisionNotFound"): "org/name has no revision 'main'",
    (401, ""): "downloading org/name failed .*401",
}


@pytest.mark.parametrize(("answer", "message"), ANSWERS.items(), ids=[f"{status} {code}" for status, code in ANSWERS])
def test_what_the_hub_refuses_is_one_sentence(answer: tuple[int, str], message: str, hub: FakeHub, tmp_path: Path) -> None:
    hub.error = answer
    with pytest.raises(NanollamaError, match=message) as caught:
        resolve("org/name", cache_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_repository_without_safetensors_is_refused_and_its_pickle_not_downloaded(hub: FakeHub, tmp_path: Path) -> None:
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"a pickle"}
    with pytest.raises(NanollamaError, match="org/name holds no safetensors file"):
        resolve("org/name", cache_dir=tmp_path)
    assert [name for name, _ in hub.gets()] == ["config.json"]


@pytest.mark.parametrize("name", ["../../escaped.safetensors", "/tmp/escaped.safetensors", "..\\escaped.safetensors"])
def test_a_hub_cannot_write_outside_the_cache(name: str, hub: FakeHub, tmp_path: Path) -> None:
    hub.files = LOADABLE | {name: b"escaped"}
    before = set(tmp_path.parent.rglob("*escaped*"))
    try:
        folder = resolve("org/name", cache_dir=tmp_path / "cache")
    except NanollamaError as error:
        assert "downloading org/name failed" in str(error)
    else:
        assert set(LOADABLE) <= set(contents(folder))
    outside = [path for path in tmp_path.parent.rglob("*escaped*") if (tmp_path / "cache") not in path.parents]
    assert set(outside) <= before


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(NanollamaError, match=f"the disk is full while downloading org/name: .*HF_HOME.*{tmp_path}"):
        resolve("org/name", cache_dir=tmp_path)


def test_the_environment_variables_of_the_hub_client_are_respected(tmp_path: Path) -> None:
    """In fresh processes: HF_ENDPOINT and HF_HOME direct the download, then HF_HUB_OFFLINE finds it; stdout stays clean."""
    program = "import sys; from nanollama.checkpoint.hub import resolve; sys.stdout.write(str(resolve('org/name')))"
    run = partial(subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=False)
    with serve(FakeHub("org/name", LOADABLE)) as server:
        environment = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": server.endpoint}
        first = run(env=environment)
        assert contents(Path(first.stdout)) == LOADABLE, first.stderr
        assert "Fetching 4 files: 100%" in first.stderr, "progress is shown, on stderr"
        server.requests.clear()
        assert run(env=environment | {"HF_HUB_OFFLINE": "1"}).stdout == first.stdout
        shutil.rmtree(tmp_path / "hub")
        refused = run(env=environment | {"HF_HUB_OFFLINE": "1"})
    assert not server.requests
    assert "offline mode is on (see HF_HUB_OFFLINE)" in refused.stderr and not refused.stdout
