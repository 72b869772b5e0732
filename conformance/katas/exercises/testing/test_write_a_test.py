"""A test is tested: right answers must pass it, wrong ones must fail it."""

import torch
from torch import Tensor

from conformance.katas.about_testing.write_a_test import Penalty, check_penalty
from conformance.katas.testing.compare import agree
from nanollama.generation.sampling import repetition_penalty


def verdict(penalty: Penalty) -> str:
    """Whether the learner's test fails."""
    try:
        check_penalty(penalty)
    except AssertionError:
        return "caught"
    return "spared"


def test_the_runtimes_own_is_spared() -> None:
    """It is right by definition here."""
    agree("check_penalty, of the runtime's repetition_penalty", verdict(repetition_penalty), "spared")


def test_another_way_to_write_it_is_spared() -> None:
    """One division for either sign: by 1/number where the logit is negative. It may round the last digit differently."""

    def one_division(logits: Tensor, counts: Tensor, number: float) -> Tensor:
        divisor = torch.where(logits < 0, torch.tensor(1 / number), torch.tensor(number))
        return torch.where(counts > 0, logits / divisor, logits)

    agree("check_penalty, of one that divides by 1/number", verdict(one_division), "spared")


def test_one_that_does_nothing_is_caught() -> None:
    """The logits are returned unchanged."""
    agree("check_penalty, of one that returns the logits", verdict(lambda logits, counts, number: logits), "caught")


def test_one_that_subtracts_is_caught() -> None:
    """That is the presence penalty."""

    def subtracts(logits: Tensor, counts: Tensor, number: float) -> Tensor:
        return torch.where(counts > 0, logits - number, logits)

    agree("check_penalty, of one that subtracts", verdict(subtracts), "caught")


def test_one_that_divides_negative_logits_is_caught() -> None:
    """-2 / 2 is -1: its token becomes more likely."""

    def divides(logits: Tensor, counts: Tensor, number: float) -> Tensor:
        return torch.where(counts > 0, logits / number, logits)

    agree("check_penalty, of one that divides negative logits", verdict(divides), "caught")


def test_one_that_penalises_each_occurrence_is_caught() -> None:
    """Seen twice, divided twice."""

    def each_time(logits: Tensor, counts: Tensor, number: float) -> Tensor:
        return torch.where(logits < 0, logits * number**counts, logits / number**counts)

    agree("check_penalty, of one that penalises each occurrence", verdict(each_time), "caught")


def test_one_that_penalises_every_token_is_caught() -> None:
    """Also those that were never seen."""

    def every_token(logits: Tensor, counts: Tensor, number: float) -> Tensor:
        return torch.where(logits < 0, logits * number, logits / number)

    agree("check_penalty, of one that penalises every token", verdict(every_token), "caught")


def test_one_that_edits_its_input_is_caught() -> None:
    """The answer is right, but the caller's logits are overwritten."""

    def in_place(logits: Tensor, counts: Tensor, number: float) -> Tensor:
        return logits.copy_(repetition_penalty(logits, counts, number))

    agree("check_penalty, of one that edits its input", verdict(in_place), "caught")
