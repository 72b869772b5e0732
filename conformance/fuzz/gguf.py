"""The hostile-GGUF fuzz: a model file, whole or in parts, is read as the `gguf` package reads it, or refused.

    python -m conformance.fuzz.gguf --cases 50000
    python -m conformance.fuzz.gguf --case 4711           # one case again, with its traceback

Runner, limits and options are those of `checkpoint.py`; this module adds the damage (to a GGUF model of random values of every
type, which replaces the safetensors checkpoint) and the target that reads it.
"""

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conformance.fuzz import checkpoint as fuzz_checkpoint
from conformance.fuzz import mutations
from conformance.fuzz.valid_gguf import ARRAY, STRING, Field, Model, Pair, integer, model_fields, parts_of, random_model

TARGET = "conformance.fuzz.gguf:read_models"
EDGES = [
    *(
        0,
        1,
        2,
        3,
        4,
        5,
        7,
        8,
        9,
        12,
        13,
        16,
        24,
        31,
        32,
        33,
        64,
        65,
        255,
        256,
        65535,
        65536,
        2**20,
        2**31 - 1,
        2**31,
        2**32 - 1,
    ),
    *(2**32, 2**40, 2**61, 2**62, 2**63 - 32, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1),
]
TEXTS = [b"", b"\xff\xfe", b"\xed\xa0\x80", b"\0", b"\x1b[31m", b"x" * 65, b"x" * 70_000, "é".encode(), b"general.alignment"]
DIMENSIONS = [[0], [2**63, 2], [2**32, 2**32], [2**62, 2**62, 2**62, 2**62], [1] * 5, [], [1], [31], [256, 1, 1, 1]]


# Damage


def damage_model(model: Model, rng: random.Random) -> Model:
    """Make something wrong (or only unusual) in a model; its file stays well-formed."""
    pairs, tensors = list(model.pairs), list(model.tensors)
    choice = rng.randrange(8)
    if choice == 0:
        pairs.append(rng.choice(pairs))
    elif choice == 1:
        pairs.append(Pair(b"general.alignment", rng.choice([2, 4, 4, 4, 5, 10]), rng.choice([0, 1, 4, 8, 24, 48, 2**15])))
    elif choice == 2:
        nested: Any = (4, [7])
        for _ in range(rng.choice([2, 6, 7, 8, 9, 2000])):
            nested = (ARRAY, [nested])
        pairs.append(Pair(b"nested", ARRAY, nested))
    elif choice == 3:
        pairs.append(Pair(rng.choice(TEXTS), STRING, rng.choice(TEXTS)))
    elif choice == 4:
        pairs.append(Pair(b"split.count", rng.choice([2, 4, 10]), rng.choice([0, 1, 2, 3, 65535])))
    elif tensors and choice == 5:
        tensors.append(rng.choice(tensors))
    elif tensors:
        i = rng.randrange(len(tensors))
        changed = {"dimensions": rng.choice(DIMENSIONS)} if choice == 6 else {"kind": rng.choice([*range(45), 2**31])}
        tensors[i] = tensors[i]._replace(**changed)
    return model._replace(pairs=pairs, tensors=tensors)


def damage_fields(fields: list[Field], rng: random.Random) -> None:
    """Change a number or a text, add or remove a field."""
    places = [i for i, field in enumerate(fields) if field.role in ("integer", "text")]
    i = rng.choice(places)
    role, raw = fields[i]
    if rng.random() < 0.15:
        fields[i : i + 1] = rng.choice([[], [fields[i]] * 2, [fields[rng.choice(places)]]])
    elif role == "text":
        fields[i] = Field(role, rng.choice([*TEXTS, raw[:-1], raw + b"x", b"\xff" + raw[1:], raw[::-1]]))
    else:
        number = int.from_bytes(raw, "little")
        nearby = [number - 1, number + 1, number + 32, number * 2, number + 2 ** (8 * len(raw) - 1)]
        fields[i] = integer(rng.choice([*EDGES, *nearby]), len(raw))


def damage_bytes(path: Path, rng: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    start, size = rng.randrange(min(len(raw), rng.choice([24, 200, len(raw)]))), rng.choice([1, 1, 2, 8])
    choice = rng.randrange(6)
    if choice < 4:
        mutations.damage_span(raw, start, size, choice, rng)
    elif choice == 4:
        raw += bytes(rng.choice([1, 31, 5000]))
    else:
        del raw[rng.choice([start, len(raw) - 1, len(raw) - 33]) :]
    path.write_bytes(raw)


def write_model(folder: Path, rng: random.Random, damage: int) -> None:
    """Write a model as the only content of `folder`, damaged in `damage` places."""
    for path in folder.iterdir():
        if not path.is_dir():
            path.unlink()
    model = random_model(rng)
    count = rng.choice([1, 1, 1, 2, 3])
    parts, names = [model], ["model.gguf"]
    if count > 1:
        parts, names = parts_of(model, count), [f"model-{i + 1:05}-of-{count:05}.gguf" for i in range(count)]
    hit = rng.randrange(count)
    by_field = rng.randrange(damage + 1)
    for _ in range(damage - by_field):
        parts[hit] = damage_model(parts[hit], rng)
    for i, name in enumerate(names):
        fields = model_fields(parts[i])
        for _ in range(by_field if i == hit else 0):
            damage_fields(fields, rng)
        (folder / name).write_bytes(b"".join(field.raw for field in fields))


def damage_gguf(folder: Path, rng: random.Random) -> None:
    """The mutation for `checkpoint.py`: a model replaces the checkpoint, then its bytes or parts are damaged."""
    files = sorted(folder.glob("*.gguf"))
    if not files:
        write_model(folder, rng, rng.choice([0, 1, 1, 1, 2, 3]))
        return
    path = rng.choice(files)
    if len(files) > 1 and rng.random() < 0.3:
        names = [*files, folder / "model.gguf", folder / "model-00004-of-00003.gguf", folder / "model-00001-of-99999.gguf"]
        rng.choice([lambda: path.unlink(), lambda: path.replace(rng.choice(names))])()
    else:
        damage_bytes(path, rng)


mutations.MUTATIONS["gguf"] = [damage_gguf]
fuzz_checkpoint.KINDS[TARGET] = ["gguf"] * 12 + ["folder"]


# The target


def read_models(folder: Path) -> None:
    """Read from every GGUF file of the folder, each a part or a whole, and compare with the `gguf` package."""
    from nanollama.checkpoint.gguf.reader import read_gguf
    from nanollama.errors import NanollamaError

    if folder.name == "sound":  # it holds a safetensors checkpoint
        write_model(folder, random.Random(0), damage=0)
    paths, refused = sorted(folder.glob("*.gguf")), None
    for path in paths or [folder / "model.gguf"]:
        try:
            model = read_gguf(path)
        except NanollamaError as error:
            refused = error
        else:
            count = model.metadata.get("split.count", 1)
            parts = [path.with_name(f"model-{i + 1:05}-of-{count:05}.gguf") for i in range(count)]
            if not any(x.shape == () and x.format.name == "BF16" for x in model.tensors.values()):
                compare_with_peer(model, parts if count > 1 else [path])  # the package fails on such a scalar
    if refused:
        raise refused


def compare_with_peer(model: Any, paths: list[Path]) -> None:
    """Raises AssertionError unless the `gguf` package finds the same metadata and tensors in these parts of the model."""
    from gguf import GGUFReader

    readers = [GGUFReader(path) for path in paths]
    fields = {key: field for key, field in readers[0].fields.items() if not key.startswith("GGUF.")}
    assert list(model.metadata) == list(fields), f"metadata keys: {list(model.metadata)} here, {list(fields)} there"
    for key, field in fields.items():
        ours, theirs = list(flat(model.metadata[key])), [field.parts[place] for place in field.data]
        if len(ours) != len(theirs) or not all(map(same_value, ours, theirs)):
            raise AssertionError(f"{key!r} is {model.metadata[key]!r} here, {theirs!r} there")
    tensors = [tensor for reader in readers for tensor in reader.tensors]
    assert list(model.tensors) == [tensor.name for tensor in tensors], "other tensors, or in another order"
    for tensor in tensors:
        kept = model.tensors[tensor.name]
        found = kept.name, kept.shape, kept.format.id, kept.format.name, kept.blocks.numpy().tobytes()
        shape = tuple(reversed(tensor.shape.tolist()))
        expected = tensor.name, shape, int(tensor.tensor_type), tensor.tensor_type.name, tensor.data.tobytes()
        assert found == expected, f"tensor {found} here, {expected} there"


def flat(value: Any) -> Iterator[Any]:
    """The innermost values, as the `gguf` package does not keep the nesting of arrays."""
    if isinstance(value, list):
        for item in value:
            yield from flat(item)
    else:
        yield value


def same_value(ours: Any, theirs: Any) -> bool:
    """`theirs` is an array of one number, or of the bytes of a string."""
    if isinstance(ours, str):
        return ours.encode("utf-8", "surrogateescape") == theirs.tobytes()
    (number,) = theirs.tolist()
    return type(ours) is type(number) and (ours == number or (ours != ours and number != number))


if __name__ == "__main__":
    raise SystemExit(fuzz_checkpoint.main(["--target", TARGET, *sys.argv[1:]]))
