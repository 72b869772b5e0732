"""The three penalties, written again: a factor with a sign rule, a number once, a number per occurrence."""

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from nanollama.generation.sampling import frequency_penalty, presence_penalty, repetition_penalty


def row(*numbers: float) -> Tensor:
    """Logits [1, V]."""
    return torch.tensor([numbers])


def counts(*numbers: float) -> Tensor:
    """How often each token has occurred, [V]."""
    return torch.tensor(numbers)


def test_a_positive_logit_is_divided() -> None:
    """6 / 1.5 is 4, for the token that was seen; the other is unchanged."""
    answers(repetition_penalty, row(6.0, 6.0), counts(1, 0), 1.5, want=row(4.0, 6.0))


def test_a_negative_logit_is_multiplied() -> None:
    """-6 · 1.5 is -9. Division would give -4: the repeated token would become *more* likely."""
    answers(repetition_penalty, row(-6.0, -6.0), counts(1, 0), 1.5, want=row(-9.0, -6.0))


def test_once_however_often_it_was_seen() -> None:
    """Seen three times, divided by 2 once: 8 becomes 4, not 1."""
    answers(repetition_penalty, row(8.0, 8.0, -8.0), counts(3, 1, 2), 2.0, want=row(4.0, 4.0, -16.0))


def test_a_penalty_below_one_rewards() -> None:
    """1/2: positive logits double, negative ones halve."""
    answers(repetition_penalty, row(3.0, -4.0), counts(1, 1), 0.5, want=row(6.0, -2.0))


def test_presence_is_subtracted_once() -> None:
    """1.5 for a token that occurred, once or five times."""
    answers(presence_penalty, row(2.0, 2.0, 2.0), counts(1, 0, 5), 1.5, want=row(0.5, 2.0, 0.5))


def test_frequency_is_subtracted_for_each_time() -> None:
    """0.5 per occurrence: five make 2.5."""
    answers(frequency_penalty, row(2.0, 2.0, 2.0), counts(1, 0, 5), 0.5, want=row(1.5, 2.0, -0.5))


def test_a_negative_penalty_adds() -> None:
    """OpenAI allows -2 to 2: below 0 repetition is rewarded."""
    answers(presence_penalty, row(0.0, 0.0), counts(2, 0), -1.0, want=row(1.0, 0.0))
    answers(frequency_penalty, row(0.0, 0.0), counts(2, 0), -1.0, want=row(2.0, 0.0))


def test_every_row_has_the_same_counts() -> None:
    """Two rows of logits [2, V], one [V] of counts."""
    rows = torch.tensor([[4.0, 4.0], [-4.0, 2.0]])
    answers(repetition_penalty, rows, counts(1, 0), 2.0, want=torch.tensor([[2.0, 4.0], [-8.0, 2.0]]))
    answers(presence_penalty, rows, counts(1, 0), 1.0, want=torch.tensor([[3.0, 4.0], [-5.0, 2.0]]))


def test_banned_tokens_stay_banned() -> None:
    """-inf stays -inf."""
    answers(repetition_penalty, row(-torch.inf, 1.0), counts(1, 0), 2.0, want=row(-torch.inf, 1.0))
    answers(frequency_penalty, row(-torch.inf, 1.0), counts(3, 0), -2.0, want=row(-torch.inf, 1.0))


def test_the_dtype_of_the_logits_stays() -> None:
    """float64 logits, counts in float64 as token_counts makes them; 1/3 differs between the dtypes."""
    logits, seen = torch.tensor([[1.0, 1.0]], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    answers(repetition_penalty, logits, seen, 3.0, want=torch.tensor([[1 / 3, 1.0]], dtype=torch.float64))
    answers(frequency_penalty, logits, seen, 1 / 3, want=torch.tensor([[1 - 1 / 3, 1.0]], dtype=torch.float64))


def test_a_seen_token_never_becomes_more_likely() -> None:
    """Fifty random rows, penalties above 1: no logit of a seen token grows, and no other changes."""
    logits, seen = torch.randn(50, 30, dtype=torch.float64), torch.randint(0, 3, (30,)).double()
    change = repetition_penalty(logits, seen, 1.3) - logits
    agree("logits of seen tokens that grew", int((change[:, seen > 0] > 0).sum()), 0)
    agree("logits of other tokens that moved", int((change[:, seen == 0] != 0).sum()), 0)
