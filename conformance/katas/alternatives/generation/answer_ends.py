"""Other right ways to end an answer."""

from nanollama.generation.request import FinishReason, Piece, Usage
from nanollama.generation.row import Row


def Row_advance__case_by_case(self: Row, token_id: int, seconds: float) -> Piece:
    """one return for each way to go on"""
    self.seconds += [seconds]
    self.generated += [token_id]
    if token_id in self.end_ids:
        return self.piece(token_id, "", "stop")
    text = self.text.push(token_id)
    if len(self.generated) >= self.budget:
        return self.piece(token_id, text, self.limit)
    return self.piece(token_id, text, None)


def Row_piece__case_by_case(self: Row, token_id: int | None, text: str, reason: FinishReason | None) -> Piece:
    """first whether it goes on; then what is the last"""
    if reason is None and not self.text.stopped:
        return Piece(self.index, token_id, text)
    rest = "" if self.text.stopped else self.text.flush()
    self.done = True
    first, *others = self.seconds or [0.0]
    usage = Usage(
        prompt_tokens=len(self.prompt),
        completion_tokens=len(self.generated),
        seed=self.seed,
        prefill_seconds=first,
        decode_seconds=sum(others, 0.0),
    )
    return Piece(self.index, token_id, text + rest, "stop" if self.text.stopped else reason, usage)


def Row_piece__one_return(self: Row, token_id: int | None, text: str, reason: FinishReason | None) -> Piece:
    """what a piece that goes on lacks is None"""
    text += self.text.flush() if reason else ""
    reason = "stop" if self.text.stopped else reason
    self.done = reason is not None
    taken = self.seconds[:1], self.seconds[1:]
    usage = Usage(len(self.prompt), len(self.generated), self.seed, *map(sum, taken)) if self.done else None
    return Piece(self.index, token_id, text, reason, usage)
