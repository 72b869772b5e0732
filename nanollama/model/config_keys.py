"""The keys of a config.json, checked as they are read: used, known to be harmless, or refused by name."""

from collections.abc import Mapping
from typing import Any

from nanollama.errors import NanollamaError
from nanollama.model.families import FAMILIES, INERT_AT, INERT_KEYS, REQUIRED, Family

LARGEST = 1 << 24  # no size of a real model is larger: a config with more is broken or hostile
SMALLEST_NUMBER, LARGEST_NUMBER = 1e-30, 1e30  # bounds of every real model's numbers; squares and quotients stay finite


def is_number(value: Any) -> bool:
    """Whether a JSON value is a positive number within bounds; true and NaN are not."""
    return type(value) in (int, float) and SMALLEST_NUMBER <= value <= LARGEST_NUMBER


class Keys(Mapping[str, Any]):
    """The keys of a config.json that its family reads, under Llama's names; checked on access, defaults filled in."""

    def __init__(self, raw: Mapping[str, Any], architecture: str) -> None:
        family = FAMILIES[architecture]
        refuse_unknown_keys(raw, family, architecture)
        self.raw, self.spelling, self.architecture = raw, family.spelling, architecture
        self.values_by_key = {k: raw.get(self.spelling.get(k, k), v) for k, v in family.keys.items()}
        for key, value in self.values_by_key.items():
            if value is REQUIRED or (value is None and family.keys[key] is REQUIRED):
                raise NanollamaError(
                    f"config.json has no {self.spelling.get(key, key)!r}, which every {architecture} needs; "
                    "the file is cut or belongs to another architecture"
                )

    def __getitem__(self, key: str) -> Any:
        return self.values_by_key[key]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.values_by_key)

    def __len__(self) -> int:
        return len(self.values_by_key)

    def wrong(self, key: str, expected: str) -> NanollamaError:
        """The error for a key with a wrong value."""
        return NanollamaError(f"config.json: {self.spelling.get(key, key)} is {self.get(key)!r}, expected {expected}")

    def integer(self, key: str, most: int = LARGEST, least: int = 1) -> int:
        """A whole number from `least` to `most`."""
        value = self[key]
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(key, f"a whole number from {least} to {most}")
        return value

    def number(self, key: str) -> float:
        """A positive number, see `is_number`."""
        if not is_number(self[key]):
            raise self.wrong(key, f"a number from {SMALLEST_NUMBER:g} to {LARGEST_NUMBER:g}")
        return float(self[key])

    def optional_number(self, key: str) -> float | None:
        """A positive number, or None if the key is absent or null."""
        return None if self.get(key) is None else self.number(key)

    def flag(self, key: str, absent: bool = False) -> bool:
        """true or false; `absent` if the family has no such key."""
        value = self.get(key, absent)
        if type(value) is not bool:
            raise self.wrong(key, "true or false")
        return value


def refuse_unknown_keys(raw: Mapping[str, Any], family: Family, architecture: str) -> None:
    """Raise for the first key that the family does not read and that is not known to be harmless at its value."""
    read = {family.spelling.get(key, key) for key in family.keys}
    for key, value in raw.items():
        if key in read or key in INERT_KEYS or key in family.inert or value is None:
            continue
        if any(type(value) is type(harmless) and value == harmless for harmless in INERT_AT.get(key, ())):
            continue
        raise NanollamaError(
            f"config.json: {key} is {str(value)[:80]!r}, and {architecture} has no such key here. It may change the "
            "mathematics, so it is not ignored: implement it, or add it to the lists in nanollama/model/families.py"
        )
