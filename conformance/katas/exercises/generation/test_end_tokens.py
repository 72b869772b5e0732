"""Which tokens end an answer, written again: the model's, the request's, and stop strings that are special tokens."""

from collections.abc import Sequence
from typing import Any

from conformance.katas.testing.compare import agree, refuses
from nanollama.errors import NanollamaError
from nanollama.generation.request import GenerationDefaults, Request, end_ids

WORDS = ["a", "b", "stop", "<s>", "<end>", "<turn>"]


class Words:
    """Six tokens, by their index in the list; the last three are special."""

    special_ids, bos_id = frozenset({3, 4, 5}), 3

    def token_to_id(self, token: str) -> int | None:
        return WORDS.index(token) if token in WORDS else None

    def id_to_token(self, token_id: int) -> str:
        return WORDS[token_id]

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        raise NotImplementedError

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return " ".join(WORDS[i] for i in ids if i not in self.special_ids or not skip_special)


def ends(*eos: int, tokenizer: Words | None = None, **given: Any) -> list[int]:
    """The ids that end such a request to a model with these end tokens, sorted."""
    return sorted(end_ids(Request([0], **given), GenerationDefaults(None, eos), tokenizer or Words()))


def without_tokenizer(stop: list[str]) -> list[int]:
    """The ids that end a request with these stop strings to a model without a tokenizer."""
    return sorted(end_ids(Request([0], stop=stop), GenerationDefaults(None, (4,)), None))


def test_the_model_s_end_token_ends_it() -> None:
    """4 is <end>."""
    agree("the ids", ends(4), [4])


def test_a_model_may_have_several() -> None:
    """Chat models end a turn with one token and a text with another; some models have none."""
    agree("the ids", ends(4, 5), [4, 5])
    agree("the ids of none", ends(), [])


def test_a_request_may_name_more() -> None:
    """1 is "b", and ends this request, as does 4."""
    agree("the ids", ends(4, stop_ids=[1]), [1, 4])


def test_the_model_s_may_be_ignored() -> None:
    """All of the model's; a benchmark needs exactly its number of tokens. The request's stop_ids still count."""
    agree("the ids", ends(4, 5, ignore_eos=True), [])
    agree("the ids with the request's stop_ids", ends(4, 5, ignore_eos=True, stop_ids=[1]), [1])


def test_a_stop_string_that_is_a_special_token_is_that_token() -> None:
    """ "<turn>" has no text in the answer: its id, 5, ends it, even if the model's are ignored."""
    agree("the ids", ends(4, stop=["<turn>"]), [4, 5])
    agree("the ids, the model's ignored", ends(4, stop=["<turn>", "<s>"], ignore_eos=True), [3, 5])


def test_other_stop_strings_are_text() -> None:
    """ "stop" is a token, but "st" and "op" can spell it too: it is searched for in the text. "<x>" is no token."""
    agree("the ids", ends(4, stop=["stop", "<x>", "a b"]), [4])


def test_one_id_for_several_reasons_is_one() -> None:
    """4 by the model, by stop_ids and by its name."""
    agree("the ids", ends(4, stop_ids=[4], stop=["<end>"]), [4])


def test_it_is_a_set_that_stays() -> None:
    """A frozenset: tested at every token, never changed."""
    agree("the ids", end_ids(Request([0], stop_ids=[1]), GenerationDefaults(None, (4,)), Words()), frozenset({1, 4}))


def test_a_stop_string_needs_a_tokenizer() -> None:
    """Without a tokenizer there is no text to search. Without stop strings none is needed."""
    agree("the ids", without_tokenizer([]), [4])
    refuses(without_tokenizer, ["END"], error=NanollamaError, naming="END")
