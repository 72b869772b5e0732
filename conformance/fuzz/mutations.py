"""Damage to checkpoints: `mutate` changes a folder that `valid_checkpoint.build` made.

Mutations draw only from `rng`: equal seeds give equal folders. Some keep the checkpoint valid, as a reader that refuses
everything is wrong too.
"""

import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from conformance.fuzz.json_damage import MARK, NUMBERS, edit
from conformance.fuzz.valid_checkpoint import INDEX, SHAPES, SHARDS, SINGLE, read, write

Mutation = Callable[[Path, random.Random], None]

DTYPES = {"F64": 8, "I64": 8, "C64": 8, "F32": 4, "U32": 4, "F16": 2, "BF16": 2, "U16": 2, "I8": 1, "F8_E4M3": 1, "BOOL": 1}
LENGTHS = [0, 1, 2, 7, 8, 9, 100_000_000, 100_000_001, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
NAMES = [
    *("../model.safetensors", "/etc/passwd", "/dev/zero", "..", ".", "", "sub/x", "C:x", "a\\b", "x\0", "n" * 300),
    *("config.json", "é"),
]


def weight_file(folder: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(path for path in folder.glob("*.safetensors") if path.is_file()))


def any_file(folder: Path, rng: random.Random) -> Path:
    """Mostly the weights and their index, sometimes a text."""
    return rng.choice(sorted(folder.glob(rng.choice(["model*", "model*", "config.json", "*"]))))


# Damage to the JSON files


def edit_file(path: Path, rng: random.Random) -> None:
    tree = json.loads(path.read_bytes())
    raws = [edit(tree, rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    path.write_text(json.dumps(tree).replace(json.dumps(MARK), "".join(raws) or "0"), encoding="utf-8")


def edit_config(folder: Path, rng: random.Random) -> None:
    edit_file(folder / rng.choice(["config.json", "config.json", "config.json", "generation_config.json"]), rng)


def edit_text(folder: Path, rng: random.Random) -> None:
    edit_file(folder / rng.choice(["tokenizer.json", "tokenizer_config.json"]), rng)


def edit_template(folder: Path, rng: random.Random) -> None:
    """A chat template with one stretch of characters removed, doubled or replaced."""
    path = folder / "tokenizer_config.json"
    tree = json.loads(path.read_bytes())
    text = tree["chat_template"]
    start = rng.randrange(len(text))
    end = start + rng.randrange(12)
    tree["chat_template"] = text[:start] + rng.choice(["", text[start:end] * 2, "{{", "%}", "{% endfor %}", "[0]"]) + text[end:]
    path.write_text(json.dumps(tree))


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
    """Change one tensor's offsets: to those of another one, or shifted."""
    path = weight_file(folder, rng)
    header, data = read(path)
    entries = [entry for name, entry in header if name != "__metadata__"]
    entry, other, by = rng.choice(entries), rng.choice(entries), rng.choice([-8, -4, -1, 1, 4, 8, len(data), 2**40, 2**63])
    shifted = [offset + by for offset in entry["data_offsets"]]
    entry["data_offsets"] = rng.choice([other["data_offsets"], shifted, entry["data_offsets"][::-1]])
    write(path, header, data)


def retype_tensor(folder: Path, rng: random.Random) -> None:
    """Change the dtype, with a shape of as many bytes: the file stays valid."""
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


def damage_span(raw: bytearray, start: int, size: int, kind: int, rng: random.Random) -> None:
    """Damage `size` bytes from `start`, in place: 0 flips a bit, 1 replaces them, 2 deletes them, 3 repeats them."""
    if kind == 0:
        raw[start] ^= 1 << rng.randrange(8)
    elif kind == 1:
        raw[start : start + size] = rng.randbytes(size)
    elif kind == 2:
        del raw[start : start + size]
    else:
        raw[start:start] = raw[start : start + size]


def change_bytes(folder: Path, rng: random.Random) -> None:
    path = weight_file(folder, rng) if rng.random() < 0.7 else any_file(folder, rng)
    raw = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 2, 8])):
        reach = min(len(raw), rng.choice([16, 400, len(raw)]))  # most of a file is data: aim at its start
        start, size = rng.randrange(reach), rng.choice([1, 1, 2, 9])
        choice = rng.randrange(5)
        if choice < 4:
            damage_span(raw, start, size, choice, rng)
        else:
            raw[start : start + 1] = rng.choice([b"[", b"{", b'"', b"\\", b"\xff", b"\0", b",", b"9", b"-", b"e"])
        raw = raw or bytearray(1)
    path.write_bytes(raw)


def cut_or_extend(folder: Path, rng: random.Random) -> None:
    path = weight_file(folder, rng) if rng.random() < 0.7 else any_file(folder, rng)
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
    path = any_file(folder, rng)
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
    path = any_file(folder, rng)
    target = folder / rng.choice(["pytorch_model.bin", "x.gguf", "x.safetensors", SINGLE, INDEX, f"{SHARDS[1]}.safetensors"])
    if target != path:
        (shutil.copyfile if rng.random() < 0.5 else shutil.move)(path, target)


MUTATIONS: dict[str, list[Mutation]] = {
    "weights": [edit_header, edit_header, move_tensor, retype_tensor, repeat_or_reorder_entries, add_empty_or_scalar_tensors,
                change_bytes, change_bytes, cut_or_extend, change_header_length],
    "index": [edit_index, rename_in_index, add_index],
    "text": [edit_text, edit_text, edit_template],
    "config": [edit_config, edit_config, size_in_config],
    "folder": [replace_file, rename_file],
}  # fmt: skip


def mutate(folder: Path, rng: random.Random, kinds: list[str]) -> None:
    """Apply one to three mutations of these kinds; one whose target is gone does nothing."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        kind = rng.choice(kinds)
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            rng.choice(MUTATIONS[kind])(folder, rng)
        if kind == "folder":
            break  # a pipe may be there now, and reading it would block
