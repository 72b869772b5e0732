"""Other right ways to stream text."""

from nanollama.errors import NanollamaError
from nanollama.text.detokenizer import KEPT, REPLACEMENT, Detokenizer


def Detokenizer_push__window_first(self: Detokenizer, token_id: int) -> str:
    """the token goes into the window first, and what is final is counted before it is cut"""
    if token_id in self.tokenizer.special_ids and self.skip_special:
        return ""
    try:
        self.tokenizer.id_to_token(token_id)
    except NanollamaError:
        return self.tokenizer.decode([token_id])
    self._window = [*self._window, token_id]
    if token_id in self._byte_ids:
        return ""
    text = self._decode(self._window)
    final = len(text) - 1 if text.endswith(REPLACEMENT) else len(text)
    piece = text[self._shown : final]
    if self._head == 0 and text:
        self._head = len(self._window)
    while self._head and len(self._window) > self._head + KEPT:
        self._window.pop(self._head)
    text = self._decode(self._window)
    self._shown = len(text.removesuffix(REPLACEMENT))
    return piece


def Detokenizer_push__before_and_after(self: Detokenizer, token_id: int) -> str:
    """what is shown is the text with the token without the text before it, as vLLM and TGI do it"""
    known = True
    try:
        self.tokenizer.id_to_token(token_id)
    except NanollamaError:
        known = False
    if not known or (self.skip_special and token_id in self.tokenizer.special_ids):
        return self._decode([token_id])
    if token_id in self._byte_ids:
        self._window.append(token_id)
        return ""
    before = self._decode(self._window)[: self._shown]
    self._window.append(token_id)
    after = self._decode(self._window)
    if after and not self._head:
        self._head = len(self._window)
    if self._head:
        self._window = self._window[: self._head] + self._window[self._head :][-KEPT:]
    held = after.endswith(REPLACEMENT)
    self._shown = len(self._decode(self._window)) - held
    return after.removesuffix(REPLACEMENT if held else "").removeprefix(before)


def Detokenizer_flush__forgets_one_by_one(self: Detokenizer) -> str:
    """first the whole text, then the state"""
    text = self._decode(self._window)
    rest = text[self._shown : len(text)]
    self._window = []
    self._head = self._shown = 0
    return rest
