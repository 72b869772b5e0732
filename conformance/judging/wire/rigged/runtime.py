"""The runtime as the rigged server's model, so that its answers can be compared with a checkpoint."""

from collections.abc import Sequence

import torch

from nanollama.lm import LM


class RuntimeModel:
    """A loaded checkpoint, evaluated anew for every token that it has not been asked for before."""

    context = 4096

    def __init__(self, lm: LM) -> None:
        assert lm.tokenizer is not None
        self.lm, self.tokenizer, self.end = lm, lm.tokenizer, lm.defaults.eos_token_ids[0]
        self.known: dict[tuple[int, ...], list[float]] = {}

    def encode(self, text: str) -> list[int]:
        """The ids of a text, BOS first where the checkpoint says so."""
        return self.tokenizer.encode(text)

    def piece(self, id: int) -> bytes:
        """The bytes of a token; special ones have none."""
        return self.tokenizer.decode([id]).encode()

    @torch.inference_mode()
    def scores(self, ids: Sequence[int]) -> list[float]:
        """Logits [V] after these ids."""
        if tuple(ids) not in self.known:
            self.known[tuple(ids)] = self.lm.model(torch.tensor([list(ids)]))[0, -1].tolist()
        return self.known[tuple(ids)]
