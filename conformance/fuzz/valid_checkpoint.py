"""A tiny valid checkpoint, written byte by byte and without torch, for the checkpoint fuzz to damage.

A Llama of 4,000 random numbers with its configuration, a tokenizer of a few letters and a chat template; the weights in one
file or in two with an index. `rng` decides everything, so equal seeds give equal folders.
"""

import json
import random
from array import array
from pathlib import Path
from typing import Any

from conformance.fuzz.json_damage import MARK

Pairs = list[tuple[str, Any]]  # a JSON object that can hold a key twice

SINGLE, INDEX, SHARDS = "model.safetensors", "model.safetensors.index.json", ("model-00001-of-00002", "model-00002-of-00002")
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "intermediate_size": 24, "vocab_size": 32,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 5000.0, "hidden_act": "silu", "torch_dtype": "float32",
    "tie_word_embeddings": False, "attention_bias": False, "bos_token_id": 1, "eos_token_id": [2, 3],
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 32},
}  # fmt: skip
LAYER = "model.layers.0."
SHAPES = {
    "model.embed_tokens.weight": [32, 16], "model.norm.weight": [16], "lm_head.weight": [32, 16],
    LAYER + "input_layernorm.weight": [16], LAYER + "post_attention_layernorm.weight": [16],
    LAYER + "self_attn.q_proj.weight": [24, 16], LAYER + "self_attn.k_proj.weight": [12, 16],
    LAYER + "self_attn.v_proj.weight": [12, 16], LAYER + "self_attn.o_proj.weight": [16, 24],
    LAYER + "mlp.gate_proj.weight": [24, 16], LAYER + "mlp.up_proj.weight": [24, 16], LAYER + "mlp.down_proj.weight": [16, 24],
}  # fmt: skip
LETTERS = ["<unk>", "<s>", "</s>", "<|end|>", *"abcdefghijklm", "Ġ", "ab", "Ġa", "cd"]
TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
    "added_tokens": [
        {"id": i, "content": LETTERS[i], "special": True}
        | dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
        for i in range(4)
    ],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "model": {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {letter: i for i, letter in enumerate(LETTERS)}, "merges": [["a", "b"], ["Ġ", "a"], ["c", "d"]],
    },
}  # fmt: skip
TEMPLATE = "{% for message in messages %}{{ bos_token }}{{ message['content'] | trim }}{% endfor %}"
TEXTS = {
    "config.json": CONFIG,
    "generation_config.json": {"bos_token_id": 1, "eos_token_id": [2, 3], "temperature": 0.6, "do_sample": True},
    "tokenizer.json": TOKENIZER,
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True, "bos_token": "<s>",
                              "eos_token": {"content": "</s>"}, "chat_template": TEMPLATE},
}  # fmt: skip


def build(folder: Path, rng: random.Random) -> None:
    """Write a valid checkpoint into the new folder `folder`."""
    folder.mkdir()
    for name, content in TEXTS.items():
        (folder / name).write_text(json.dumps(content))
    names = list(SHAPES)
    if rng.random() < 0.4:
        write(folder / SINGLE, *tensors_of(names, rng))
        return
    weight_map: dict[str, str] = {}
    for shard, part in zip(SHARDS, (names[:5], names[5:]), strict=True):
        write(folder / f"{shard}.safetensors", *tensors_of(part, rng))
        weight_map |= dict.fromkeys(part, f"{shard}.safetensors")
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def tensors_of(names: list[str], rng: random.Random) -> tuple[Pairs, bytes]:
    """A float32 header and its data, values in -1 … 1."""
    header: Pairs = [("__metadata__", {"format": "pt"})]
    data = array("f")
    for name in names:
        begin, count = 4 * len(data), SHAPES[name][0] * SHAPES[name][-1] ** (len(SHAPES[name]) - 1)
        data.extend(rng.uniform(-1, 1) for _ in range(count))
        header.append((name, {"dtype": "F32", "shape": SHAPES[name], "data_offsets": [begin, 4 * len(data)]}))
    return header, data.tobytes()


def write(path: Path, header: Pairs, data: bytes, raw: str = "", padding: int | None = None) -> None:
    """A safetensors file; the first string MARK in the header becomes the text `raw`."""
    text = to_json(header).replace(json.dumps(MARK), raw, 1).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8 if padding is None else padding)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def to_json(pairs: Pairs) -> str:
    return "{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in pairs) + "}"


def read(path: Path) -> tuple[Pairs, bytes]:
    """Header and data of a file that is still well-formed; ValueError if it no longer is."""
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    return list(json.loads(raw[8:end]).items()), raw[end:]
