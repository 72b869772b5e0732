"""Damage to any JSON tree: keys and values that a careless reader does not expect."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

MARK = "raw JSON goes here"  # a placeholder for text that json.dumps cannot write
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
        holder[key] = copy.deepcopy(rng.choice(VALUES))  # later damage must not reach into VALUES
    return ""
