"""Temperature and greedy choice, written again: a division of logits, and the choice of the largest."""

import torch

from conformance.katas.testing.compare import agree, answers
from nanollama.generation.sampling import greedy, temperature


def test_a_half_doubles_the_logits() -> None:
    """1 / 0.5 is 2: below 1 the temperature sharpens."""
    answers(temperature, torch.tensor([[1.0, -3.0, 0.0]]), 0.5, want=torch.tensor([[2.0, -6.0, 0.0]]))


def test_two_halves_them() -> None:
    """Above 1 it flattens."""
    answers(temperature, torch.tensor([[1.0, -3.0, 0.0]]), 2.0, want=torch.tensor([[0.5, -1.5, 0.0]]))


def test_one_changes_nothing() -> None:
    """The model's distribution."""
    row = torch.tensor([[4.0, -1.0]])
    answers(temperature, row, 1.0, want=row.clone())


def test_odds_are_raised_to_a_power() -> None:
    """Odds of 3 to 1 at temperature 1/2 become 3² to 1: probabilities 0.9 and 0.1."""
    row = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log()
    agree(
        "softmax(temperature(logits, 0.5))", temperature(row, 0.5).softmax(-1), torch.tensor([[0.9, 0.1]], dtype=torch.float64)
    )


def test_banned_tokens_stay_banned() -> None:
    """-inf divided by anything is -inf."""
    answers(temperature, torch.tensor([[-torch.inf, 3.0]]), 3.0, want=torch.tensor([[-torch.inf, 1.0]]))


def test_the_dtype_stays() -> None:
    """float64 in, float64 out; 1/3 differs between the dtypes."""
    row = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    answers(temperature, row, 3.0, want=torch.tensor([[1 / 3, 2 / 3]], dtype=torch.float64))


def test_greedy_takes_the_largest_logit() -> None:
    """2 is larger than 1, and than -7."""
    answers(greedy, torch.tensor([[1.0, 2.0, -7.0]]), want=torch.tensor([1]))


def test_of_equal_logits_the_lowest_id_wins() -> None:
    """Ids 1 and 3 are tied, and the choice must be the same on every machine."""
    answers(greedy, torch.tensor([[0.0, 5.0, 1.0, 5.0]]), want=torch.tensor([1]))


def test_each_row_chooses_for_itself() -> None:
    """Three rows of two."""
    answers(greedy, torch.tensor([[0.0, 1.0], [3.0, 2.0], [-1.0, -0.5]]), want=torch.tensor([1, 0, 1]))


def test_no_temperature_moves_the_greedy_choice() -> None:
    """Twenty random rows at three temperatures: division by a positive number keeps the order."""
    rows = torch.randn(20, 50, dtype=torch.float64)
    for t in (0.01, 0.7, 100.0):
        agree(f"greedy(temperature(logits, {t}))", greedy(temperature(rows, t)), greedy(rows))
