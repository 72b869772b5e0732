"""The hostile-GGUF fuzz for whole models: a damaged export of any architecture gives text, or a NanollamaError.

    python -m conformance.fuzz.gguf_models --cases 10000

`gguf.py` tests the reader with meaningless values; this one starts from a working file and changes keys of its architecture,
shapes and names of tensors, or the vocabulary. Runner and options are those of `checkpoint.py`.
"""

import functools
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from conformance.fuzz import checkpoint as fuzz_checkpoint
from conformance.fuzz import mutations
from conformance.fuzz.gguf import damage_bytes

TARGET = "conformance.fuzz.gguf_models:use_model"
INTEGERS = [0, 1, 2, 3, 7, -1, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40]
FLOATS = [0.0, 0.5, -1.0, 1e-30, 1e30, float("nan"), float("inf")]
TEXTS = ["", "linear", "yarn", "longrope", "none", "llama", "x" * 300, "\x1b[31m"]
OTHERS = [True, False, *TEXTS, [1, 2], [3, 3, 3], ["a"], [0.5], [True]]
KEYS = (
    *("context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count", "vocab_size"),
    *("attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.layer_norm_rms_epsilon"),
    *("attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base", "rope.freq_base_swa"),
    *("rope.dimension_count", "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear", "rope.scaling.attn_factor"),
    *("rope.scaling.original_context_length", "rope.scaling.yarn_beta_fast", "expert_count", "expert_used_count"),
    *("expert_feed_forward_length", "attn_logit_softcapping", "final_logit_softcapping", "attention.scale", "logit_scale"),
)
TOKENIZER = (
    *("model", "pre", "tokens", "token_type", "scores", "bos_token_id", "eos_token_id", "add_bos_token", "add_space_prefix"),
)
TENSORS = (
    *("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight", "output.weight", "blk.0.attn_qkv.weight"),
)


@functools.cache
def sound_file(architecture: str, file_type: str) -> bytes:
    """A working file of an architecture's fixture, with a small vocabulary."""
    from conformance.fuzz.valid_vocabulary import scored
    from conformance.models.gguf_fixtures import write_folder
    from nanollama.checkpoint.export import export_gguf
    from nanollama.checkpoint.gguf.reader import read_gguf
    from nanollama.checkpoint.gguf.writer import stored, write_gguf
    from nanollama.checkpoint.source import open_source

    vocabulary = scored()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "model")
        write_folder(folder, architecture, vocab_size=len(vocabulary["tokenizer.ggml.tokens"]))
        export_gguf(open_source(folder), folder / "model.gguf", file_type)
        model = read_gguf(folder / "model.gguf")
        write_gguf(folder / "whole.gguf", {**model.metadata, **vocabulary}, [stored(t) for t in model.tensors.values()], {})
        return (folder / "whole.gguf").read_bytes()


def damage_model(folder: Path, rng: random.Random) -> None:
    """The mutation for `checkpoint.py`: a working file replaces the checkpoint, then its contents are changed."""
    from conformance.models.fixtures import FIXTURES

    for path in folder.iterdir():
        if not path.is_dir():
            path.unlink()
    path = folder / "model.gguf"
    path.write_bytes(sound_file(rng.choice(list(FIXTURES)), rng.choice(["f32", "f16", "q8_0", "q4_0"])))
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        if rng.random() < 0.15:
            damage_bytes(path, rng)
            return
        rewrite(path, rng)


def rewrite(path: Path, rng: random.Random) -> None:
    """Change one key or one tensor; the file stays well-formed."""
    from nanollama.checkpoint.gguf.reader import read_gguf
    from nanollama.checkpoint.gguf.writer import stored, write_gguf
    from nanollama.errors import NanollamaError

    model = read_gguf(path)
    values: dict[str, Any] = dict(model.metadata)
    tensors = [stored(tensor) for tensor in model.tensors.values()]
    changed = None
    if rng.random() < 0.7:
        prefix = rng.choice([f"{values.get('general.architecture')}.", "tokenizer.ggml."])
        changed = prefix + rng.choice(KEYS if prefix != "tokenizer.ggml." else TOKENIZER)
        values[changed] = rng.choice([rng.choice([*INTEGERS, *FLOATS]), rng.choice(OTHERS), nearby(values.get(changed), rng)])
        if rng.random() < 0.15:
            del values[changed]
    else:
        i = rng.randrange(len(tensors))
        damaged = tensors[i]
        choice = rng.randrange(5)
        if choice == 0:
            del tensors[i]
        elif choice == 1:
            tensors[i] = damaged._replace(name=rng.choice([*TENSORS, rng.choice(tensors).name.replace("blk.0", "blk.7")]))
        elif choice == 2:
            tensors[i] = damaged._replace(shape=(1, *damaged.shape))
        elif choice == 3:
            tensors.append(damaged._replace(name=rng.choice(TENSORS)))
        else:
            j = rng.randrange(len(tensors))
            tensors[i], tensors[j] = damaged._replace(name=tensors[j].name), tensors[j]._replace(name=damaged.name)
    types = {key: type_ for key, type_ in model.types.items() if key != changed}
    try:
        write_gguf(path.with_name("new"), values, tensors, types)
    except NanollamaError:  # the writer refuses it
        return
    path.with_name("new").replace(path)


def nearby(value: Any, rng: random.Random) -> Any:
    """A value close to this one."""
    if isinstance(value, list) and value:
        twice = [*value[:5], value[0], *value[6:]]
        return rng.choice([value[:-1], value + value[-1:], value[::-1], twice, value[:1] * len(value)])
    if isinstance(value, int | float):
        return rng.choice([value - 1, value + 1, value * 2, -value, value // 2 if value else 1])
    return rng.choice(OTHERS)


def use_model(folder: Path) -> None:
    """Load, encode, decode, and make two tokens."""
    import torch

    from nanollama.lm import load

    if folder.name == "sound":  # it holds a safetensors checkpoint
        damage_model(folder, random.Random(0))
    lm = load(folder / "model.gguf", device="cpu")
    logits = lm.model(torch.tensor([[0, 1, 2]]))
    assert logits.shape == (1, 3, lm.config.vocab_size)
    if lm.tokenizer is not None:
        assert lm.tokenizer.decode(lm.tokenizer.encode("abc <s>\n é")) is not None
        "".join(lm.generate("ab", max_tokens=2, temperature=0.0))


mutations.MUTATIONS["gguf model"] = [damage_model]
fuzz_checkpoint.KINDS[TARGET] = ["gguf model"]

if __name__ == "__main__":
    raise SystemExit(fuzz_checkpoint.main(["--target", TARGET, *sys.argv[1:]]))
