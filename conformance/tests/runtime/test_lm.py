"""The public names and the parameters of `LM`: each is listed in one place, and the copies agree with it."""

import ast
import inspect
from dataclasses import MISSING, fields
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import nanollama
from conformance.models.small_model import write_small_model
from nanollama.cli.options import COMMANDS, home_of
from nanollama.generation.loop import generate
from nanollama.generation.request import GenerationDefaults, Request
from nanollama.generation.sampling import SamplingParams
from nanollama.lm import LM, load

HELD_ELSEWHERE = {"prompt_ids", "params"}  # fields of Request that lm.generate makes of the prompt and the other parameters
OTHERS: dict[str, Any] = {  # a value for each parameter that is not its default
    "max_tokens": 3, "stop": ["x"], "stop_ids": [5], "ignore_eos": True, "context": 9,
    "temperature": 0.5, "top_k": 3, "top_p": 0.7, "min_p": 0.1, "typical_p": 0.8, "repetition_penalty": 1.5,
    "presence_penalty": 0.25, "frequency_penalty": -0.5, "penalty_window": 4, "logit_bias": {1: 2.0}, "seed": 6,
}  # fmt: skip


def defaults_of(kind: type[Any]) -> dict[str, Any]:
    """The fields of a dataclass that have a default, with it; an empty dict stands as None in a signature."""
    made = {f.name: f.default if f.default is not MISSING else f.default_factory for f in fields(kind)}
    return {name: None if value is dict else value for name, value in made.items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> LM:
    return load(write_small_model(tmp_path_factory.mktemp("small")), device="cpu")


@pytest.mark.parametrize("method", [LM.generate, LM.chat])
def test_every_field_of_request_and_sampling_is_a_parameter_with_the_same_default(method: Any) -> None:
    want = {**defaults_of(Request), **defaults_of(SamplingParams), "context": None}
    want = {name: value for name, value in want.items() if name not in HELD_ELSEWHERE}
    parameters = inspect.signature(method).parameters.values()
    got = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "tools"}
    assert got == want
    assert not [p for p in parameters if p.kind is p.VAR_KEYWORD]
    assert OTHERS.keys() == want.keys()


@pytest.mark.parametrize("method", ["generate", "chat"])
def test_every_parameter_reaches_its_field(method: str, small: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Request, int | None]] = []

    def stream(_: LM, requests: list[Request], *, context: int | None = None) -> Any:
        seen.append((requests[0], context))
        return iter(())

    monkeypatch.setattr(LM, "stream", stream)
    getattr(small, method)("Hi" if method == "generate" else [{"role": "user", "content": "Hi"}], **OTHERS)
    [(request, context)] = seen
    params = {name: value for name, value in OTHERS.items() if name in defaults_of(SamplingParams)}
    assert request.params == SamplingParams(**params)
    assert (request.max_tokens, request.stop, request.stop_ids, request.ignore_eos) == (3, ("x",), {5}, True)
    assert context == 9


def test_a_misspelled_parameter_is_a_type_error(small: LM) -> None:
    misspelled: dict[str, Any] = {"tempreature": 0.0}
    with pytest.raises(TypeError, match="tempreature"):
        small.generate("Hi", **misspelled)


def test_every_option_of_the_loop_is_one_of_stream() -> None:
    loop, stream = (inspect.signature(function).parameters for function in (generate, LM.stream))
    kept = {name: p.default for name, p in loop.items() if name not in ("model", "tokenizer", "requests", "defaults")}
    assert {name: p.default for name, p in stream.items() if name not in ("self", "requests")} == kept


def test_loading_leaves_what_ends_a_text_out_of_the_config(small: LM) -> None:
    assert small.config is small.model.config
    assert small.defaults == GenerationDefaults(1, (2,))
    assert not hasattr(small.config, "eos_token_ids")


def test_public_names_stand_in_one_place() -> None:
    assert nanollama.__all__ == list(nanollama.HOMES)
    tree = ast.parse(Path(str(nanollama.__file__)).read_text(encoding="utf-8"))
    typed = {
        alias.asname: str(node.module).removeprefix("nanollama.")
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == nanollama.HOMES
    for name, home in nanollama.HOMES.items():
        assert getattr(nanollama, name) is getattr(import_module(f"nanollama.{home}"), name)
    assert (files("nanollama") / "py.typed").is_file()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_function_of_its_module(name: str) -> None:
    assert callable(getattr(import_module(f"nanollama.{home_of(name)}"), f"{name}_command"))
