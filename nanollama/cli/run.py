"""The commands that are over when they have answered: run, bench, verify, doctor, pull, show."""

import json
import math
import os
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from nanollama.checkpoint.hub import resolve
from nanollama.checkpoint.safetensors import read_folder
from nanollama.checkpoint.source import load_config, open_source
from nanollama.cli.bench import bench, show
from nanollama.cli.output import Answer, end_line, notice, rates, read_stdin, speed, write
from nanollama.cli.settings import DEFAULT_MAX_TOKENS, Values, make_request, read_settings
from nanollama.cli.suite import run_suite
from nanollama.errors import NanollamaError
from nanollama.lm import LM, load, load_model
from nanollama.model.config import ModelConfig
from nanollama.quant.weight_only import quantize_model


def load_lm(options: Namespace) -> LM:
    """The model that the options name."""
    lm = load(options.model, options.dtype, options.device, options.quantize)
    if options.compile:
        lm.compile()
    return lm


def run_command(options: Namespace) -> int:
    """Continue a text, or answer one message."""
    settings = read_settings(options)
    if options.system is not None and not options.chat:
        raise NanollamaError("--system is for the chat template: add --chat, or put the text into the prompt")
    prompt = read_stdin() if options.prompt in (None, "-") else options.prompt
    lm = load_lm(options)
    request = make_request(prompt_ids(lm, prompt, options), settings)
    answer = Answer()
    for piece in lm.stream([request], context=options.context):
        answer.add(piece)
        if not options.json:
            write(piece.text)
    if options.json:
        write(json.dumps(report(options.model, answer), ensure_ascii=False) + "\n")
    else:
        end_line(answer.text)
    say_end(answer, settings)
    return 0


def prompt_ids(lm: LM, prompt: str, options: Namespace) -> list[int]:
    """The ids of the prompt, as text or as a message."""
    if not options.chat:
        return text_ids(lm, prompt, parse_special=options.parse_special)
    system = [] if options.system is None else [{"role": "system", "content": options.system}]
    return lm.encode_chat([*system, {"role": "user", "content": prompt}], parse_content=options.parse_special)


def text_ids(lm: LM, text: str, *, parse_special: bool = False) -> list[int]:
    """The ids of a text to continue, at least one."""
    ids = lm.encode(text, parse_special=parse_special)
    if not ids:
        raise NanollamaError("the prompt is empty, and this tokenizer puts no token in front of a text; give some text")
    return ids


def report(model: str, answer: Answer) -> dict[str, Any]:
    """What `run --json` prints."""
    usage = answer.usage
    assert usage is not None
    prefill, decode = rates(usage)
    timings = {
        "prefill_seconds": usage.prefill_seconds,
        "decode_seconds": usage.decode_seconds,
        "prefill_tokens_per_second": prefill,
        "decode_tokens_per_second": decode,
    }
    return {"model": model, **answer.to_json(), "timings": timings}


def say_end(answer: Answer, settings: Values) -> None:
    """The speed of an answer, and a word where it was cut by a limit that nobody asked for."""
    if answer.finish_reason == "context":
        notice("[the answer stops here because the context is full]")
    elif answer.finish_reason == "length" and settings.get("max_tokens") == DEFAULT_MAX_TOKENS:
        notice(f"[the answer stops here after {DEFAULT_MAX_TOKENS} tokens; --max-tokens changes that]")
    if answer.usage is not None:
        notice(speed(answer.usage))


def bench_command(options: Namespace) -> int:
    """Measure prefill, decoding, loading and memory with a model."""
    limit = load_config(resolve(options.model)).max_position_embeddings
    if options.prompt_tokens + options.new_tokens > limit:
        raise NanollamaError(f"--prompt-tokens and --new-tokens make more than {limit} tokens, the context of this model")
    lengths = options.prompt_tokens, options.new_tokens, options.repeats
    result = bench(options.model, options.dtype, options.device, *lengths, options.compile, options.quantize)
    if options.json:
        write(json.dumps(asdict(result)) + "\n")
    else:
        show(result, lambda line: write(f"{line}\n"))
    return 0


def verify_command(options: Namespace) -> int:
    """Compare two models with the suite."""
    return suite("verify", options)


def doctor_command(options: Namespace) -> int:
    """Check this machine with the suite."""
    return suite("doctor", options)


def suite(command: str, options: Namespace) -> int:
    """Run a command of the suite with these options. Its exit status is ours."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    places = ["--", given.pop("a"), given.pop("b")] if "a" in given else []
    flags = [f"--{name}={value}" for name, value in given.items()]
    # in its own process group Ctrl-C does not reach it, but us, and we end it: without a traceback
    return run_suite(command, "conformance", [command, *flags, *places], process_group=0)


def pull_command(options: Namespace) -> int:
    """Download a model, or find it in the cache."""
    if os.path.lexists(os.path.expanduser(options.model)):  # noqa: PTH111  # what a hub id might be, Path refuses
        raise NanollamaError(f"{options.model} is a local path, there is nothing to pull; expected a hub id, org/name")
    write(f"{resolve(options.model)}\n")
    return 0


def show_command(options: Namespace) -> int:
    """Config, number of parameters, and tensors of a checkpoint, read from its headers; of a GGUF file its metadata."""
    folder = resolve(options.model, offline=True)
    if options.quantize:
        write("".join(f"{line}\n" for line in change_lines(folder, options.quantize)))
        return 0
    if folder.is_file():
        from nanollama.cli.show import show_gguf

        show_gguf(folder, options.tensors)
        return 0
    source = open_source(folder)
    stored = read_folder(folder)
    write(f"{folder}\n\n" + "".join(f"{name:24} {value}\n" for name, value in config_lines(source.config)))
    parameters = sum(math.prod(t.shape) for t in {id(t): t for t in source.tensors.values()}.values())
    write(f"\nparameters               {parameters:,}\n")
    bytes_by_dtype: Counter[str] = Counter()
    for tensor in stored.values():
        bytes_by_dtype[short(tensor.dtype)] += tensor.numel() * tensor.element_size()
    counts = Counter(short(tensor.dtype) for tensor in stored.values())
    for dtype, size in bytes_by_dtype.items():
        write(f"{dtype:24} {counts[dtype]} tensors, {size:,} bytes\n")
    if options.tensors:
        write("\n" + "".join(f"{name:48} {short(t.dtype):9} {list(t.shape)}\n" for name, t in stored.items()))
    return 0


def change_lines(path: Path, quantize: str) -> Iterator[str]:
    """What our own quantization does to every matrix of a model, and to its size in memory."""
    model = load_model(path, "float32", "cpu")
    kept = sum(parameter.nbytes for parameter in model.parameters())
    changes = quantize_model(model, quantize)
    yield f"{'matrix':44} {'shape':>14}  stored  error    float32 bytes → bytes"
    for change in changes:
        shape = " x ".join(map(str, change.shape))
        sizes = f"{change.bytes_before:13,} → {change.bytes_after:,}"
        yield f"{change.name:44} {shape:>14}  {change.format:6}  {change.error:.4f}  {sizes}"
    before, after = (sum(getattr(change, name) for change in changes) for name in ("bytes_before", "bytes_after"))
    yield f"{'all weights':44} {'':14}  {'':6}  {'':6}  {kept:13,} → {kept - before + after:,}"


def config_lines(config: ModelConfig) -> list[tuple[str, str]]:
    """The fields of a config as text; a field with one entry per layer is shown once where all layers have the same."""
    lines = []
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, tuple) and len(value) == config.num_hidden_layers and len(set(value)) == 1:
            value = f"{value[0]}, in every layer"
        lines.append((field.name, str(value)))
    return lines


def short(dtype: object) -> str:
    """A dtype's name without "torch."."""
    return str(dtype).removeprefix("torch.")
