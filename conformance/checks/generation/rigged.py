"""Models whose right answer is known and small tokenizers, for checks of text and of the generation loop.

A rigged model answers by a rule over all ids that a row was fed so far. It records them, and raises Failed at the function that
fed it for a gap, two prompt tokens at one position, or more tokens than the cache holds. In decoding, a position that is fed
again is overwritten, as in a cache, so a finished row may be fed anything. Padding gives NaN.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from conformance.checks import Failed
from nanollama.errors import NanollamaError
from nanollama.generation.request import GenerationDefaults

Rule = Callable[[list[int]], list[float]]
NAN = float("nan")


class RiggedCache:
    """The ids that each row was fed, in order of position."""

    def __init__(self, batch: int, max_len: int, limits: Sequence[int]) -> None:
        self.rows: list[list[int]] = [[] for _ in range(batch)]
        self.max_len, self.limits = max_len, list(limits)


class RiggedModel:
    """The interface of a model over a rule; `calls` records the shape of the ids and `last_only` of every call."""

    def __init__(self, rule: Rule, size: int, context: int = 64, eos: tuple[int, ...] = ()) -> None:
        self.rule, self.calls, self.caches = rule, list[tuple[int, int, bool]](), list[RiggedCache]()
        self.config = SimpleNamespace(vocab_size=size, max_position_embeddings=context)
        self.defaults = GenerationDefaults(eos_token_ids=eos)

    def new_cache(self, *, batch: int, max_len: int, limits: Sequence[int] | None = None) -> RiggedCache:
        self.caches.append(RiggedCache(batch, max_len, limits or [max_len] * batch))
        return self.caches[-1]

    def __call__(self, ids: Tensor, *, cache: RiggedCache, positions: Tensor, last_only: bool = False) -> Tensor:
        place = "generation.loop.prefill" if last_only else "generation.loop.decode"
        self.calls.append((*ids.shape, last_only))
        if ids.shape != positions.shape or len(ids) != len(cache.rows):
            raise Failed(place, f"ids {list(ids.shape)} at positions {list(positions.shape)} for {len(cache.rows)} rows")
        out = torch.full((*ids.shape, self.config.vocab_size), NAN, dtype=torch.float64)
        last = [0] * len(ids)
        for b, row in enumerate(cache.rows):
            for t, (token, position) in enumerate(zip(ids[b].tolist(), positions[b].tolist(), strict=True)):
                if position == -1:
                    continue
                if position > len(row) or position >= cache.max_len:
                    raise Failed(place, f"row {b} was fed position {position} after {len(row)} tokens of {cache.max_len}")
                if last_only and row[position : position + 1] not in ([], [token]):
                    raise Failed(place, f"row {b} was fed token {token} at position {position}, where it has {row[position]}")
                row[position : position + 1] = [token]
                out[b, t], last[b] = torch.tensor(self.rule(row[: position + 1]), dtype=torch.float64), t
        return out[torch.arange(len(out)), torch.tensor(last)][:, None] if last_only else out


def hashed(size: int) -> Rule:
    """Logits that depend on every earlier id: a wrong, missing, doubled or misplaced one changes everything after it."""

    def rule(ids: list[int]) -> list[float]:
        state = 17
        for token in ids:
            state = (state * 6364136223846793005 + token * 2 + 1) % 2**64
        numbers = []
        for _ in range(size):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            numbers.append((state >> 33) / 2**29)
        return numbers

    return rule


def scripted(script: Sequence[int], size: int, prompt: int) -> Rule:
    """After `prompt` tokens, gives the script, whatever it is fed."""
    return lambda ids: [9.0 if token == script[max(0, len(ids) - prompt)] else 0.0 for token in range(size)]


def greedy_answer(rule: Rule, prompt: Sequence[int], count: int) -> list[int]:
    """The greedy tokens of the rule."""
    ids = list(prompt)
    for _ in range(count):
        logits = rule(ids)
        ids.append(logits.index(max(logits)))
    return ids[len(prompt) :]


@dataclass
class Pieces:
    """A tokenizer whose token i is the bytes pieces[i], spelled as its text; special ones have no text. Uses no runtime code.

    strips: a space at the start of a decoded text is dropped, as SentencePiece's decoders do. byte_from: the ids from here on
    are the tokens `<0x00>` … `<0xFF>`, and an invalid run of them is shown as one U+FFFD for each. `decoded` counts ids.
    """

    pieces: Sequence[bytes]
    special_ids: frozenset[int] = frozenset()
    bos_id: int | None = None
    strips: bool = False
    byte_from: int | None = None
    decoded: list[int] = field(default_factory=list)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        raise NotImplementedError("ids only")

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        self.decoded.append(len(ids))
        run, out = b"", b""
        for token in [*(i for i in ids if not (skip_special and i in self.special_ids)), -1]:
            if self.byte_from is not None and self.byte_from <= token < self.byte_from + 256:
                run += bytes([token - self.byte_from])
                continue
            try:
                out += run.decode("utf-8").encode("utf-8")
            except UnicodeDecodeError:
                out += "\ufffd".encode() * len(run)
            run = b""
            if 0 <= token < len(self.pieces):
                out += self.pieces[token]
        text = out.decode("utf-8", errors="replace")
        return text.removeprefix(" ") if self.strips else text

    def token_to_id(self, token: str) -> int | None:
        if self.byte_from is not None and token.startswith("<0x") and len(token) == 6:
            return self.byte_from + int(token[3:5], 16)
        names = {piece.decode("utf-8", errors="replace"): i for i, piece in enumerate(self.pieces)}
        return names.get(token)

    def id_to_token(self, token_id: int) -> str:
        if self.byte_from is not None and self.byte_from <= token_id < self.byte_from + 256:
            return f"<0x{token_id - self.byte_from:02X}>"
        if token_id >= len(self.pieces):
            raise NanollamaError(f"id {token_id} has no token")
        return self.pieces[token_id].decode("utf-8", errors="replace").replace(" ", "▁")


@contextmanager
def blamed(place: str) -> Iterator[None]:
    """Exceptions inside become Failed at this function, as its callees were checked before."""
    try:
        yield
    except Failed:
        raise
    except Exception as error:
        raise Failed(place, f"{type(error).__name__}: {str(error)[:300]}") from error


@contextmanager
def fresh() -> Iterator[None]:
    """Clear the caches of the runtime's functions before and after."""
    forget()
    try:
        yield
    finally:
        forget()


def forget() -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("nanollama"):
            for value in list(vars(module).values()):
                clear: Any = getattr(value, "cache_clear", None)
                if clear is not None and not isinstance(value, type):
                    clear()
    codepoints: Any = sys.modules.get("nanollama.text.llamacpp.codepoints")
    if codepoints is not None and hasattr(codepoints, "_classes"):
        codepoints._classes.clear()
