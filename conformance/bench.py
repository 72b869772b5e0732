"""Speed and memory beside transformers: the same files, the same prompt, fresh processes in turn, ratios pair by pair.

Each round starts one process per engine. A machine that is busy slows both alike; the ratio is what to read.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from conformance.fixtures import checkpoint_shapes
from nanollama.bench import Speed, bench, peak_rss

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
HIGHER_IS_BETTER = ("prefill_tokens_per_second", "decode_tokens_per_second")


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


def bench_transformers(folder: str, prompt_tokens: int, new_tokens: int, repeats: int) -> Speed:
    """The same measurement of transformers with its own cache and SDPA."""
    from transformers import AutoModelForCausalLM, DynamicCache

    started = time.perf_counter()
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True).eval()
    loaded = time.perf_counter()
    ids = torch.arange(prompt_tokens)[None] % model.config.vocab_size

    def run() -> tuple[float, float]:
        cache = DynamicCache(config=model.config)
        begin = time.perf_counter()
        token = model(ids, past_key_values=cache, logits_to_keep=1).logits[:, -1].argmax(-1).tolist()
        middle = time.perf_counter()
        for _ in range(new_tokens):
            token = model(torch.tensor([token]), past_key_values=cache, logits_to_keep=1).logits[:, -1].argmax(-1).tolist()
        return middle - begin, time.perf_counter() - middle

    with torch.inference_mode():
        first, _ = run()
        times = [run() for _ in range(repeats)]
    return Speed(
        loaded - started,
        loaded - started + first,
        prompt_tokens / statistics.median(t[0] for t in times),
        new_tokens / statistics.median(t[1] for t in times),
        peak_rss(),
    )


def child(engine: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Measure one engine in a process of its own."""
    command = [sys.executable, "-m", "conformance.bench", "--engine", engine, "--folder", str(folder)]
    sizes = [f"--prompt={options.prompt}", f"--new={options.new}", f"--repeats={options.repeats}"]
    threads = {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run([*command, *sizes], env=os.environ | threads, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Alternate the engines and print the table; medians of each and of the ratios."""
    engines = ["nanollama", "transformers"]
    figures: dict[str, list[dict[str, float]]] = {engine: [] for engine in engines}
    for round_number in range(options.rounds):
        for engine in engines if round_number % 2 == 0 else engines[::-1]:
            figures[engine].append(child(engine, folder, options))
            print(f"round {round_number + 1} {engine:13} done", file=sys.stderr)
    names = list(figures["nanollama"][0])
    table: dict[str, Any] = {}
    print(f"\n{'median of ' + str(options.rounds):28}{'nanollama':>12}{'transformers':>14}{'ratio':>8}   per round")
    for name in names:
        ours, theirs = ([run[name] for run in figures[engine]] for engine in engines)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        table[name] = {"nanollama": statistics.median(ours), "transformers": statistics.median(theirs)}
        table[name]["ratio"] = statistics.median(ratios)
        scale, label = (1e9, "peak_rss_gigabytes") if name == "peak_rss_bytes" else (1.0, name)
        row = table[name]
        better = "higher" if name in HIGHER_IS_BETTER else "lower"
        print(
            f"{label:28}{row['nanollama'] / scale:12.2f}{row['transformers'] / scale:14.2f}{row['ratio']:7.2f}x"
            f"   {' '.join(f'{r:.2f}' for r in ratios)}  ({better} is better)"
        )
    return table


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each engine")
    parser.add_argument("--prompt", type=int, default=256, help="prompt tokens")
    parser.add_argument("--new", type=int, default=32, help="tokens to decode")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs in each process, after one that warms up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=22, help="fewer for a quick look")
    parser.add_argument("--folder", type=Path, help="a checkpoint folder instead of random weights of TinyLlama-1.1B's shapes")
    parser.add_argument("--engine", choices=["nanollama", "transformers"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = (options.prompt, options.new, options.repeats)
    if options.engine == "nanollama":
        print(json.dumps(asdict(bench(str(options.folder), "auto", "cpu", *sizes, compiled=False))))
    elif options.engine == "transformers":
        print(json.dumps(asdict(bench_transformers(str(options.folder), *sizes))))
    elif options.folder:
        compare(options.folder, options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(write_random_model(Path(folder), options.layers), options)


if __name__ == "__main__":
    main()
