"""Engines by name: `NAME[:ARGUMENT]`. The module of an engine is imported on demand, because each needs another package."""

import importlib
from dataclasses import dataclass

from conformance.engines.engine import Engine
from nanollama.errors import NanollamaError, unknown_name


@dataclass(frozen=True)
class Entry:
    """An engine that can be named: its usage, a description, and the package that it needs."""

    usage: str
    what: str
    install: str = ""


ENGINES: dict[str, Entry] = {
    "nanollama": Entry("nanollama[:DTYPE][,DEVICE]", "this project's runtime"),
    "transformers": Entry("transformers[:eager|sdpa|compiled][,DTYPE]", "Hugging Face transformers", "transformers"),
    "llamacpp": Entry("llamacpp[:OPTIONS]", "llama.cpp through its Python binding", "llama-cpp-python"),
    "mlx": Entry("mlx[:OPTIONS]", "mlx-lm", "'mlx[cpu]' mlx-lm"),
    "ctranslate2": Entry("ctranslate2[:OPTIONS]", "CTranslate2", "ctranslate2"),
    "onnxgenai": Entry("onnxgenai[:OPTIONS]", "ONNX Runtime generate()", "onnxruntime-genai onnx"),
    "openvino": Entry("openvino[:OPTIONS]", "OpenVINO GenAI", "openvino-genai"),
    "http": Entry("http://HOST:PORT/v1", "an OpenAI-compatible server"),
    "https": Entry("https://HOST/v1", "an OpenAI-compatible server"),
    "exec": Entry(
        "exec:COMMAND", "any program that speaks the protocol of conformance/engines/protocols/protocol.py", "jsonschema"
    ),
}
MODULES = {
    "http": "protocols.openai_http",
    "https": "protocols.openai_http",
    "exec": "protocols.protocol",
}  # the others are adapters
WHOLE = ("http", "https")  # these take the whole text, not the part after the colon


def find_engine(spec: str) -> Engine:
    """The engine of this name, ready to load; raises NanollamaError with the known names, or with the missing package."""
    name, _, argument = spec.partition(":")
    if name not in ENGINES:
        raise unknown_name("engine", name, ENGINES, "python -m conformance run --engines")
    entry, module = ENGINES[name], f"{__package__}.{MODULES.get(name, f'adapters.{name}')}"
    try:
        engine: Engine = importlib.import_module(module).ENGINE(spec if name in WHOLE else argument)
    except ImportError as error:
        if error.name == module:
            raise NanollamaError(f"engine {name!r} is not in this version") from error
        need = f"; install it: python -m pip install {entry.install}" if entry.install else ""
        raise NanollamaError(f"engine {name!r} can't be used here: {error}{need}") from error
    return engine


def engine_list() -> str:
    """All engines, one line each."""
    return "\n".join(f"{entry.usage:40} {entry.what}" for entry in ENGINES.values())
