"""Speed and memory compared to transformers: the same files and prompt, alternating, with the ratio of each pair.

Each round starts one process per engine, so that they share no memory or settings. A busy machine slows both alike, so read
the ratio.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from conformance.models.fixtures import checkpoint_shapes
from nanollama.cli.bench import peak_rss, timed_run
from nanollama.lm import load_model

TINYLLAMA: dict[str, Any] = {  # the shapes of TinyLlama-1.1B
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}
Times = tuple[float, float]  # seconds of prefill and of decoding


def write_random_model(folder: Path, layers: int) -> Path:
    """A checkpoint of TinyLlama's shapes with random bfloat16 weights, in one file."""
    config = TINYLLAMA | {"num_hidden_layers": layers}
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.ones(shape, dtype=torch.bfloat16)
        if len(shape) == 1
        else torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
        for name, shape in checkpoint_shapes(config).items()
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def load_transformers(folder: Path) -> Any:
    """transformers' model with its default attention (SDPA)."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    load: Any = AutoModelForCausalLM.from_pretrained
    return load(folder, dtype="auto", local_files_only=True).eval()


def timed_transformers(model: Any, ids: torch.Tensor, new_tokens: int) -> Times:
    """The same run as `nanollama.cli.bench.timed_run`, with transformers' cache."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    begin = time.perf_counter()
    token = model(ids, past_key_values=cache, logits_to_keep=1).logits[:, -1].argmax(-1).tolist()
    middle = time.perf_counter()
    for _ in range(new_tokens):
        token = model(torch.tensor([token]), past_key_values=cache, logits_to_keep=1).logits[:, -1].argmax(-1).tolist()
    return middle - begin, time.perf_counter() - middle


ENGINES: dict[str, tuple[Callable[[Path], Any], Callable[[Any, torch.Tensor, int], Times]]] = {
    "nanollama": (load_model, timed_run),
    "transformers": (load_transformers, timed_transformers),
}


def measure(engine: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Measure one engine in this fresh process: start, memory, and speed after a warm-up run."""
    load, run = ENGINES[engine]
    begin = time.perf_counter()
    model = load(folder)
    loaded = time.perf_counter()
    ids = torch.arange(options.prompt)[None] % model.config.vocab_size
    with torch.inference_mode():
        first, _ = run(model, ids, options.new)
        times = [run(model, ids, options.new) for _ in range(options.repeats)]
    return {
        "prefill tok/s": options.prompt / statistics.median(prefill for prefill, _ in times),
        "decode tok/s": options.new / statistics.median(decode for _, decode in times),
        "load seconds": loaded - begin,
        "first token after seconds": loaded - begin + first,
        "peak memory GB": peak_rss() / 1e9,
    }


def child(engine: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Measure an engine in a new process."""
    command = [sys.executable, "-m", "conformance.verify.bench", f"--measure={engine}", f"--folder={folder}"]
    sizes = [f"--{name}={getattr(options, name)}" for name in ("prompt", "new", "repeats")]
    threads = {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run([*command, *sizes], env=os.environ | threads, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def ratio_line(name: str, ours: list[float], theirs: list[float], better: str) -> str:
    """One line of the table: medians of both, and of their ratio."""
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    middle = (statistics.median(ours), statistics.median(theirs), statistics.median(ratios))
    figures = f"{middle[0]:12.2f}{middle[1]:14.2f}{middle[2]:8.2f}x   {ratios[0]:.2f} to {ratios[-1]:.2f}"
    return f"{name:28}{figures}   ({better} is better)"


def compare_engines(folder: Path, options: argparse.Namespace) -> None:
    """Measure the engines alternately and print the table."""
    figures: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    for number in range(options.rounds):
        for engine in list(ENGINES) if number % 2 else list(ENGINES)[::-1]:
            figures[engine].append(child(engine, folder, options))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    print(f"{'':28}{'nanollama':>12}{'transformers':>14}{'ratio':>9}   range")
    for name in figures["nanollama"][0]:
        ours, theirs = ([run[name] for run in figures[engine]] for engine in ENGINES)
        print(ratio_line(name, ours, theirs, "higher" if name.endswith("tok/s") else "lower"))


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="processes of each engine")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs in each process, after a warm-up run")
    parser.add_argument("--prompt", type=int, default=256, help="prompt tokens")
    parser.add_argument("--new", type=int, default=32, help="tokens to decode")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=22, help="fewer for a quick look")
    parser.add_argument("--folder", type=Path, help="a checkpoint folder instead of random weights of TinyLlama-1.1B's shapes")
    parser.add_argument("--measure", choices=list(ENGINES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.folder, options)))
    elif options.folder:
        compare_engines(options.folder, options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare_engines(write_random_model(Path(folder), options.layers), options)


if __name__ == "__main__":
    main()
