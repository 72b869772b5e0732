"""llama.cpp's server through its Python binding: started on a free port, judged, and stopped.

    python -m conformance.judging.wire.llamacpp_server [FILE.gguf] [--fields QUERY] [--json FILE] [--report FILE] [-- OPTIONS]

Needs `pip install 'llama-cpp-python[server]'`. Without a file the suite's own small model is served. `--fields` go into
every request: with repeat_penalty=1.0 greedy answers are greedy, with `-- --type_k 0 --type_v 0` the cache is float32.
"""

import argparse
import importlib.util
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from conformance.engines.protocols.openai_http import OpenAIServer
from conformance.judging.command import RunOptions, run_command
from conformance.judging.wire.served_model import write_served_model
from nanollama.checkpoint.export import export_gguf
from nanollama.checkpoint.source import open_source
from nanollama.errors import NanollamaError

OPTIONS = ("--host", "127.0.0.1", "--n_ctx", "1024", "--logits_all", "true", "--verbose", "false")
PATIENCE = 120.0  # seconds until it must listen


@contextmanager
def llamacpp_server(model: Path, options: Sequence[str] = ()) -> Iterator[str]:
    """Yields a running server's base URL; raises NanollamaError with its last output if it does not start."""
    if importlib.util.find_spec("llama_cpp") is None:
        raise NanollamaError("llama_cpp is not installed here; install it: python -m pip install 'llama-cpp-python[server]'")
    port = free_port()
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--port", str(port), *OPTIONS, *options]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            url = f"http://127.0.0.1:{port}/v1"
            if not comes_up(process, url):
                log.seek(0)
                raise NanollamaError(f"llama_cpp.server did not start: {log.read()[-500:].decode('utf-8', 'replace')}")
            yield url
        finally:
            process.terminate()


def free_port() -> int:
    """A free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def comes_up(process: "subprocess.Popen[bytes]", url: str) -> bool:
    """Wait until it answers, dies, or takes too long."""
    end, engine = time.monotonic() + PATIENCE, OpenAIServer(url)
    while process.poll() is None and time.monotonic() < end:
        try:
            return engine.exchange("GET", "/models").status == 200
        except OSError:
            time.sleep(0.2)
    return False


def write_served_gguf(folder: Path) -> Path:
    """The suite's small model as a GGUF file."""
    path = folder / "served.gguf"
    (folder / "checkpoint").mkdir()
    export_gguf(open_source(write_served_model(folder / "checkpoint")), path, "f32")
    return path


def main(arguments: list[str] | None = None) -> int:
    """Judge it; the exit status is that of `python -m conformance run`."""
    given = sys.argv[1:] if arguments is None else arguments
    cut = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(prog="python -m conformance.judging.wire.llamacpp_server", description=__doc__)
    parser.add_argument("model", metavar="FILE.gguf", nargs="?", type=Path)
    parser.add_argument("--fields", default="", metavar="QUERY", help="for every request, such as 'repeat_penalty=1.0&top_k=0'")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--report", metavar="FILE", type=Path)
    options = parser.parse_args(given[:cut])
    try:
        with tempfile.TemporaryDirectory() as folder:
            model = options.model or write_served_gguf(Path(folder))
            with llamacpp_server(model, given[cut + 1 :]) as url:
                engine = f"{url}?{options.fields}" if options.fields else url
                return run_command(RunOptions(engine, json=options.json, report=options.report, model=str(model)))
    except NanollamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
