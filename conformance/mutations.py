"""Small valid checkpoints, and the many ways in which a stranger's checkpoint can be wrong.

`build(folder, rng)` writes a tiny Llama (config.json, one safetensors file or two shards with an index), byte by byte and
without torch. `mutate(folder, rng, kinds)` damages it. Both draw only from `rng`: equal seeds give equal folders. Some
mutations keep the checkpoint valid; a reader that refuses everything is not what the fuzz asks for.
"""

import json
import os
import random
import shutil
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

Mutation = Callable[[Path, random.Random], None]
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

NUMBERS: list[int | float] = [
    *(0, 1, -1, 2, 3, 5, 127, 2**16, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30),
    *(0.5, -0.5, 1e-300, 1e308, 1e39),
]  # fmt: skip
VALUES: list[Any] = [
    *(*NUMBERS, True, False, None, [], {}, [0], [[]], {"a": 1}, [1] * 70),
    *("", "F32", "I64", "F4", "BOOL", "yarn", "../x", "x" * 5000),
]
RAW = [
    *("NaN", "Infinity", "-Infinity", "1e999", "-0", "9" * 5000, "00", "0x10", "nul", "'a'", "", "//"),
    *('"\\ud800"', '"\\u0000"', '"\x01"', '"\\x"', '{"a":1,"a":2}', "[]," * 5000 + "[]"),
    *("[" * 2000 + "]" * 2000, '{"a":' * 2000 + "1" + "}" * 2000, "[" * 50_000),
]
MARK = "raw JSON goes here"
DTYPES = {"F64": 8, "I64": 8, "C64": 8, "F32": 4, "U32": 4, "F16": 2, "BF16": 2, "U16": 2, "I8": 1, "F8_E4M3": 1, "BOOL": 1}
LENGTHS = [0, 1, 2, 7, 8, 9, 100_000_000, 100_000_001, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
NAMES = [
    *("../model.safetensors", "/etc/passwd", "/dev/zero", "..", ".", "", "sub/x", "C:x", "a\\b", "x\0", "n" * 300),
    *("config.json", "é"),
]


def build(folder: Path, rng: random.Random) -> None:
    """Write a valid checkpoint into the new folder `folder`."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
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
    """A float32 header and its data, little values of either sign."""
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


def weight_file(folder: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(path for path in folder.glob("*.safetensors") if path.is_file()))


# Damage to JSON: any key or value of a tree


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key or index) of every value in a JSON tree."""
    items = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    for key, value in items:
        yield tree, key
        yield from places(value)


def edit(tree: Any, rng: random.Random) -> str:
    """Change one value in place; returns the raw text that the caller must put for MARK."""
    found = list(places(tree))
    if not found:
        return ""
    holder, key = rng.choice(found)
    value, action = holder[key], rng.randrange(6)
    if action == 0:
        del holder[key]
    elif action == 1 and type(value) in (int, float):
        holder[key] = rng.choice([value + 1, value - 1, value * 2, value // 2, -value, value * 10**6, float(value), str(value)])
    elif action == 2 and isinstance(holder, dict):
        holder[rng.choice(["", "x", key + " ", key.upper(), "__metadata__", "dtype", "\ud800", "é" * 9])] = holder.pop(key)
    elif action == 3:
        other_holder, other = rng.choice(found)
        holder[key] = json.loads(json.dumps(other_holder[other]))
    elif action == 4:
        holder[key] = MARK
        return rng.choice(RAW)
    else:
        holder[key] = rng.choice(VALUES)
    return ""


def edit_file(path: Path, rng: random.Random) -> None:
    tree = json.loads(path.read_bytes())
    raws = [edit(tree, rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    path.write_text(json.dumps(tree).replace(json.dumps(MARK), "".join(raws) or "0"), encoding="utf-8")


def edit_config(folder: Path, rng: random.Random) -> None:
    edit_file(folder / "config.json", rng)


def size_in_config(folder: Path, rng: random.Random) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    key = rng.choice([key for key, value in config.items() if type(value) in (int, float)])
    config[key] = rng.choice([*NUMBERS, config[key] + 1, config[key] * 2])
    (folder / "config.json").write_text(json.dumps(config))


def edit_index(folder: Path, rng: random.Random) -> None:
    edit_file(folder / INDEX, rng)


def rename_in_index(folder: Path, rng: random.Random) -> None:
    index = json.loads((folder / INDEX).read_bytes())
    index["weight_map"][rng.choice(list(SHAPES))] = rng.choice([*NAMES, SINGLE, f"{SHARDS[0]}.safetensors"])
    (folder / INDEX).write_text(json.dumps(index))


def add_index(folder: Path, rng: random.Random) -> None:
    names = dict.fromkeys(SHAPES, rng.choice([SINGLE, *NAMES]))
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))


# Damage to a safetensors file that knows the format


def edit_header(folder: Path, rng: random.Random) -> None:
    path = weight_file(folder, rng)
    header, data = read(path)
    tree = dict(header)
    raw = "".join([edit(tree, rng) for _ in range(rng.choice([1, 1, 1, 2]))])
    write(path, list(tree.items()), data, raw or "0", rng.choice([None, None, rng.randrange(9)]))


def move_tensor(folder: Path, rng: random.Random) -> None:
    """Other offsets for one tensor: those of another one, or its own shifted."""
    path = weight_file(folder, rng)
    header, data = read(path)
    entries = [entry for name, entry in header if name != "__metadata__"]
    entry, other, by = rng.choice(entries), rng.choice(entries), rng.choice([-8, -4, -1, 1, 4, 8, len(data), 2**40, 2**63])
    shifted = [offset + by for offset in entry["data_offsets"]]
    entry["data_offsets"] = rng.choice([other["data_offsets"], shifted, entry["data_offsets"][::-1]])
    write(path, header, data)


def retype_tensor(folder: Path, rng: random.Random) -> None:
    """Another dtype, with a shape of as many bytes: a valid file."""
    path = weight_file(folder, rng)
    header, data = read(path)
    entry = rng.choice([entry for name, entry in header if name != "__metadata__"])
    entry["dtype"] = rng.choice(list(DTYPES))
    entry["shape"] = [(entry["data_offsets"][1] - entry["data_offsets"][0]) // DTYPES[entry["dtype"]]]
    write(path, header, data, padding=rng.randrange(9))


def repeat_or_reorder_entries(folder: Path, rng: random.Random) -> None:
    path = weight_file(folder, rng)
    header, data = read(path)
    if rng.random() < 0.5:
        header.insert(rng.randrange(len(header)), rng.choice(header))
    rng.shuffle(header)
    write(path, header, data)


def add_empty_or_scalar_tensors(folder: Path, rng: random.Random) -> None:
    path = weight_file(folder, rng)
    header, data = read(path)
    shape = rng.choice([[0], [3, 0], [0, 2**62, 2**62], [2**63, 0], [], [1] * 64, [1] * 65])
    size = 4 if 0 not in shape else 0
    header.append(("extra", {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + size]}))
    write(path, header, data + bytes(size))


# Damage to bytes


def change_bytes(folder: Path, rng: random.Random) -> None:
    path = weight_file(folder, rng) if rng.random() < 0.8 else rng.choice(sorted(folder.glob("*.json")))
    raw = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 2, 8])):
        reach = min(len(raw), rng.choice([16, 400, len(raw)]))  # most of a file is data: aim at its start
        start, size = rng.randrange(reach), rng.choice([1, 1, 2, 9])
        choice = rng.randrange(5)
        if choice == 0:
            raw[start] ^= 1 << rng.randrange(8)
        elif choice == 1:
            raw[start : start + size] = rng.randbytes(size)
        elif choice == 2:
            del raw[start : start + size]
        elif choice == 3:
            raw[start:start] = raw[start : start + size]
        else:
            raw[start : start + 1] = rng.choice([b"[", b"{", b'"', b"\\", b"\xff", b"\0", b",", b"9", b"-", b"e"])
        raw = raw or bytearray(1)
    path.write_bytes(raw)


def cut_or_extend(folder: Path, rng: random.Random) -> None:
    path = weight_file(folder, rng) if rng.random() < 0.8 else rng.choice(sorted(folder.glob("*.json")))
    raw = path.read_bytes()
    length = rng.choice([rng.randrange(12), rng.randrange(len(raw) + 1), len(raw) - 1, len(raw) + 1, len(raw) + 5000])
    path.write_bytes(raw[:length].ljust(length, rng.choice([b"\0", b" ", b"\xff"])))


def change_header_length(folder: Path, rng: random.Random) -> None:
    path = weight_file(folder, rng)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    length = rng.choice([*LENGTHS, length - 1, length + 1, length + 8, len(raw) - 8, len(raw) - 7]) % 2**64
    path.write_bytes(length.to_bytes(8, "little") + raw[8:])


# Damage to the folder


def replace_file(folder: Path, rng: random.Random) -> None:
    path = rng.choice(sorted(folder.iterdir()))
    path.unlink()
    makers: list[Callable[[], object]] = [
        lambda: None,
        path.mkdir,
        lambda: os.mkfifo(path),
        lambda: path.symlink_to(path.name),
        lambda: path.symlink_to("nowhere"),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        lambda: path.write_bytes(b"<!DOCTYPE html><html>404</html>"),
        lambda: path.write_bytes(b"PK\x03\x04" + rng.randbytes(100)),
        lambda: path.write_bytes(b"[" * 3_000_000),
        lambda: path.write_bytes(rng.randbytes(300)),
    ]
    rng.choice(makers)()


def rename_file(folder: Path, rng: random.Random) -> None:
    path = rng.choice(sorted(folder.iterdir()))
    target = folder / rng.choice(["pytorch_model.bin", "x.gguf", "x.safetensors", SINGLE, INDEX, f"{SHARDS[1]}.safetensors"])
    if target != path:
        (shutil.copyfile if rng.random() < 0.5 else shutil.move)(path, target)


MUTATIONS: dict[str, list[Mutation]] = {
    "weights": [edit_header, edit_header, move_tensor, retype_tensor, repeat_or_reorder_entries, add_empty_or_scalar_tensors,
                change_bytes, change_bytes, cut_or_extend, change_header_length],
    "index": [edit_index, rename_in_index, add_index],
    "config": [edit_config, edit_config, size_in_config],
    "folder": [replace_file, rename_file],
}  # fmt: skip


def mutate(folder: Path, rng: random.Random, kinds: list[str]) -> None:
    """Apply one to three mutations of these kinds; one that no longer finds what it would damage does nothing."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        kind = rng.choice(kinds)
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            rng.choice(MUTATIONS[kind])(folder, rng)
        if kind == "folder":
            break  # there may be a pipe now, and reading it would block
