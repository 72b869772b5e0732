"""`nanollama bench`: how fast this machine reads a prompt and writes an answer with a model, and what that takes in memory."""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from nanollama.checkpoint.hub import resolve
from nanollama.lm import load_model
from nanollama.model.transformer import Transformer


@dataclass(frozen=True)
class Speed:
    """Medians over the repeats; seconds, tokens per second, bytes."""

    load_seconds: float
    first_token_seconds: float  # from the start of loading to the logits after the prompt, first run: maps pages, warms up
    prefill_tokens_per_second: float
    decode_tokens_per_second: float
    peak_rss_bytes: int


def bench(
    source: str,
    dtype: str,
    device: str,
    prompt_tokens: int,
    new_tokens: int,
    repeats: int,
    compiled: bool = False,
    quantize: str | None = None,
) -> Speed:
    """Load the model and time it on a prompt of fixed ids, one row; decoding takes the greedy id of each step."""
    started = time.perf_counter()
    model = load_model(resolve(source), dtype, device, quantize)
    loaded = time.perf_counter()
    if compiled:
        for layer in model.layers:
            layer.compile()
    ids = torch.arange(prompt_tokens)[None] % model.config.vocab_size
    with torch.inference_mode():
        first, _ = timed_run(model, ids, new_tokens)
        times = [timed_run(model, ids, new_tokens) for _ in range(repeats)]
    return Speed(
        load_seconds=loaded - started,
        first_token_seconds=loaded - started + first,
        prefill_tokens_per_second=prompt_tokens / statistics.median(t[0] for t in times),
        decode_tokens_per_second=new_tokens / statistics.median(t[1] for t in times),
        peak_rss_bytes=peak_rss(),
    )


def timed_run(model: Transformer, ids: torch.Tensor, new_tokens: int) -> tuple[float, float]:
    """Seconds of prefill of ids [1, T] and of decoding; `tolist` waits for the device, as picking a token does."""
    cache = model.new_cache(1, ids.shape[1] + new_tokens)
    begin = time.perf_counter()
    token = model(ids, cache=cache, last_only=True)[:, -1].argmax(-1).tolist()
    middle = time.perf_counter()
    for _ in range(new_tokens):
        token = model(torch.tensor([token]), cache=cache)[:, -1].argmax(-1).tolist()
    return middle - begin, time.perf_counter() - middle


def peak_rss() -> int:
    """The most memory this process has held, in bytes; 0 where the system does not say."""
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def show(speed: Speed, write: Callable[[str], object] = print) -> None:
    """The figures as lines of text."""
    write(f"load             {speed.load_seconds:8.2f} s   first logits after {speed.first_token_seconds:.2f} s")
    write(f"prefill          {speed.prefill_tokens_per_second:8.1f} tok/s")
    write(f"decode           {speed.decode_tokens_per_second:8.1f} tok/s")
    write(f"peak memory      {speed.peak_rss_bytes / 1e9:8.2f} GB")
