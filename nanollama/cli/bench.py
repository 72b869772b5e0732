"""`nanollama bench`: the speed of prefill and decoding on this machine with a model, and the memory that it takes."""

import json
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from nanollama.checkpoint.hub import resolve
from nanollama.checkpoint.source import load_config
from nanollama.cli.output import write
from nanollama.errors import NanollamaError
from nanollama.generation.loop import generate
from nanollama.generation.request import Request
from nanollama.generation.sampling import SamplingParams
from nanollama.lm import load_model
from nanollama.model.transformer import Transformer


@dataclass(frozen=True)
class BenchResult:
    """Medians over the repeats; seconds, tokens per second, bytes."""

    load_seconds: float
    first_token_seconds: float  # from the start of loading to the first token of the first run: maps pages, warms up
    prefill_tokens_per_second: float
    decode_tokens_per_second: float
    peak_rss_bytes: int


def bench_command(options: Namespace) -> int:
    """Measure prefill, decoding, loading and memory with a model."""
    limit = load_config(resolve(options.model)).max_position_embeddings
    if options.prompt_tokens + options.new_tokens >= limit:
        raise NanollamaError(
            f"--prompt-tokens and --new-tokens, with the token after the prompt, make more than {limit} tokens, the context "
            "of this model"
        )
    result = bench(options)
    if options.json:
        write(json.dumps(asdict(result)) + "\n")
    else:
        write("".join(f"{line}\n" for line in bench_lines(result)))
    return 0


def bench(options: Namespace) -> BenchResult:
    """Load the model and time it on a prompt of fixed ids, one row."""
    started = time.perf_counter()
    model = load_model(resolve(options.model), options.dtype, options.device, options.quantize)
    loaded = time.perf_counter()
    if options.compile:
        for layer in model.layers:
            layer.compile()
    ids = torch.arange(options.prompt_tokens)[None] % model.config.vocab_size
    first, _ = timed_run(model, ids, options.new_tokens)
    times = [timed_run(model, ids, options.new_tokens) for _ in range(options.repeats)]
    return BenchResult(
        load_seconds=loaded - started,
        first_token_seconds=loaded - started + first,
        prefill_tokens_per_second=options.prompt_tokens / statistics.median(prefill for prefill, _ in times),
        decode_tokens_per_second=options.new_tokens / statistics.median(decode for _, decode in times),
        peak_rss_bytes=peak_rss(),
    )


def timed_run(model: Transformer, ids: Tensor, new_tokens: int) -> tuple[float, float]:
    """Seconds of prefill of ids [1, T] and of `new_tokens` greedy steps after it, in the generation loop."""
    request = Request(ids[0].tolist(), SamplingParams(temperature=0.0), max_tokens=new_tokens + 1)  # prefill gives the first
    *_, last = generate(model, None, [request])
    assert last.usage is not None
    return last.usage.prefill_seconds, last.usage.decode_seconds


def peak_rss() -> int:
    """The most memory this process has held, in bytes; 0 if the system does not report it."""
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def bench_lines(result: BenchResult) -> Iterator[str]:
    """The figures as lines of text."""
    yield f"load             {result.load_seconds:8.2f} s   first token after {result.first_token_seconds:.2f} s"
    yield f"prefill          {result.prefill_tokens_per_second:8.1f} tok/s"
    yield f"decode           {result.decode_tokens_per_second:8.1f} tok/s"
    yield f"peak memory      {result.peak_rss_bytes / 1e9:8.2f} GB"
