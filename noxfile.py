"""The only way in: `nox` runs what CI runs, `nox -l` lists the rest. Every session installs what it needs from PyPI."""

import os
import tarfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests", "conformance", "score", "katas"]

PATHS = ["nanollama", "conformance", "noxfile.py"]
LLAMA_CPP = "llama-cpp-python==0.3.36"
PEERS = [  # versions that were seen to work together; none of them touches torch or transformers
    *(LLAMA_CPP.replace("python==", "python[server]=="), "mlx[cpu]==0.32.4", "mlx-lm==0.32.2", "ctranslate2==4.8.5"),
    *("onnxruntime-genai==0.18.0", "onnxruntime==1.32.0", "onnx==1.23.2", "onnx-ir==1.1.0"),
]
JUDGED = ["nanollama", "transformers", "llamacpp", "mlx"]
CONVERTER = ("convert_hf_to_gguf.py", "conversion/", "gguf-py/")  # the parts of its source package that convert checkpoints


def install(session: nox.Session) -> None:
    """The project and its peers, editable, and the versions that matter."""
    session.install("-q", "-e", ".[dev]")
    session.run(
        "python", "-c", "import torch, transformers as t; print('torch', torch.__version__, 'transformers', t.__version__)"
    )


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, on all cores. NANOLLAMA_DATA names the folder of real checkpoints that some of them need."""
    install(session)
    session.run("pytest", "-n", "auto", "--dist", "worksteal", *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """Prove the runtime on this machine's CPU, then generate text: nox -s conformance -- --model FOLDER."""
    install(session)
    session.run("python", "-m", "conformance", "run", *session.posargs)


@nox.session
def score(session: nox.Session) -> None:
    """A minute of the suite's own score on seeded bugs; fails below the published one. All of it: -- --mutants 300."""
    install(session)
    session.run("python", "-m", "conformance", "score", *(session.posargs or ["--budget", "50"]))


@nox.session
def katas(session: nox.Session) -> None:
    """Every law for every kata: no drift, power, fairness, mutants …; prints the counts. Names of katas: -- rope top_p."""
    install(session)
    session.run("python", "-m", "conformance.katas.laws", *session.posargs)


@nox.session
def engines(session: nox.Session) -> None:
    """Engines that are not ours, and a server, judged side by side; builds llama.cpp, which takes minutes. Others: -- NAME …"""
    install(session)
    session.install("-q", "torch>=2.9,<2.14", *PEERS)
    folder, runs = Path(session.create_tmp()), []
    for name in session.posargs or JUDGED:
        runs.append(str(folder / f"{name}.json"))
        session.run("python", "-m", "conformance", "run", "--engine", name, "--json", runs[-1], success_codes=[0, 1])
    runs.append(str(folder / "server.json"))
    session.run("python", "-m", "conformance.judging.wire.llamacpp_server", "--json", runs[-1], success_codes=[0, 1])
    session.run("python", "-m", "conformance.report", *runs, "--html", str(folder / "engines.html"))
    session.log(f"the engines side by side: {folder / 'engines.html'}")
    session.run("pytest", "-n", "0", "conformance/tests/suite/engines/test_other_engines.py")


def on_device(session: nox.Session, device: str, there: str) -> None:
    """The goldens on an accelerator; without one the session says so and counts as skipped, not as passed."""
    install(session)
    found = session.run("python", "-c", f"import torch; print({there})", silent=True)
    if "True" not in str(found):
        session.skip(f"torch sees no {device} device on this machine: nothing was checked")
    session.run("python", "-m", "conformance", "doctor", "--device", device)


@nox.session
def cuda(session: nox.Session) -> None:
    """The goldens on an NVIDIA GPU, per dtype."""
    on_device(session, "cuda", "torch.cuda.is_available()")


@nox.session
def mps(session: nox.Session) -> None:
    """The goldens on an Apple GPU, per dtype."""
    on_device(session, "mps", "torch.backends.mps.is_available()")


@nox.session
def llamacpp(session: nox.Session) -> None:
    """GGUF beside llama.cpp, both ways: logits, quantized bytes, token ids. Builds llama.cpp first, which takes minutes."""
    install(session)
    folder = Path(session.create_tmp()) / LLAMA_CPP
    if not (folder / CONVERTER[0]).is_file():
        download = ["pip", "download", "-q", "--no-deps", "--no-binary", "llama-cpp-python", "-d", str(folder), LLAMA_CPP]
        session.run("python", "-m", *download)
        unpack_converter(next(folder.glob("*.tar.gz")), folder)
    session.install("-q", str(next(folder.glob("*.tar.gz"))))
    session.run("python", "-m", "conformance.engines.llamacpp_export", "--converter", str(folder), *session.posargs)
    session.run("python", "-m", "conformance.truth.peers.llamacpp_quantize")
    data = os.environ.get("NANOLLAMA_DATA")
    vocabularies = sorted(map(str, Path(data).glob("tokenizers/ggml-vocab/*.gguf"))) if data else []
    if not vocabularies:
        session.log("NANOLLAMA_DATA is not set: no real vocabulary was compared, only every way to cut a text into words")
    session.run("python", "-m", "conformance.fuzz.tokenizer", *vocabularies, "--pre", "all", "--count", "500")


def unpack_converter(archive: Path, folder: Path) -> None:
    """llama.cpp's own converter, out of the source package of its Python binding."""
    with tarfile.open(archive) as package:
        for member in package.getmembers():
            name = member.name.partition("/vendor/llama.cpp/")[2]
            if name.startswith(CONVERTER):
                member.name = name
                package.extract(member, folder, filter="data")


@nox.session
def golden(session: nox.Session) -> None:
    """Write golden/ anew; with -- --check, compare it with what would be written."""
    install(session)
    session.run("python", "-m", "conformance", "golden", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install("-q", "ruff>=0.14")
    session.run("ruff", "check", *PATHS)
    session.run("ruff", "format", "--check", *PATHS)


@nox.session
def types(session: nox.Session) -> None:
    """Static types, strict."""
    install(session)
    session.install("-q", "mypy>=1.18")
    session.run("mypy")


@nox.session
def bench(session: nox.Session) -> None:
    """Speed and memory beside transformers, in one run, alternating: nox -s bench -- --help."""
    install(session)
    session.run("python", "-m", "conformance.verify.bench", *session.posargs)
