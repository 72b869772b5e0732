"""Other right ways to judge a repetition penalty."""

import torch

from conformance.katas.about_testing.write_a_test import Penalty


def by_hand(penalty: Penalty) -> None:
    """one call for each question, numbers that are not exact, and room for rounding"""
    for logit, count, want in ((1.5, 1, 1.5 / 1.3), (-1.5, 1, -1.5 * 1.3), (1.5, 3, 1.5 / 1.3), (0.7, 0, 0.7), (0.0, 1, 0.0)):
        given = torch.tensor([[logit, 9.0]])
        got = penalty(given, torch.tensor([float(count), 0.0]), 1.3)
        assert torch.allclose(got, torch.tensor([[want, 9.0]]), atol=1e-6)
        assert given.tolist() == torch.tensor([[logit, 9.0]]).tolist()


def random_rows(penalty: Penalty) -> None:
    """many random rows against a loop in plain Python"""
    for number in (0.5, 1.7):
        logits, counts = torch.randn(1, 50), torch.randint(0, 4, (50,)).float()
        want = [x if not n else x * number if x < 0 else x / number for x, n in zip(logits[0].tolist(), counts, strict=True)]
        before = logits.clone()
        assert torch.allclose(penalty(logits, counts, number), torch.tensor([want]))
        assert torch.equal(logits, before)
