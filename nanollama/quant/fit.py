"""The search for good scales that the K formats are written with: weighted least squares over a few grids.

A group is a column: x is [n, G], n values of each of G groups, so that a sum over a group adds whole rows in order. That
order, and one rounding per operation, gives the same bits as ggml's C (`make_qkx2_quants`, `make_qx_quants` in
ggml-quants.c) when it is compiled without fused multiply-add. A C build that fuses differs in a code here and there.
"""

from functools import reduce

import torch
from torch import Tensor

from nanollama.quant.bits import finite

NEGLIGIBLE = 1e-15  # groups with no larger magnitude count as zero


def ordered_sum(x: Tensor) -> Tensor:
    """[n, G] → [G], added from the first to the last."""
    return reduce(torch.add, x.unbind(0))


def divide(number: float | Tensor, x: Tensor) -> Tensor:
    """number / x with one rounding (torch's `number / x` is number · (1/x), with two)."""
    return torch.as_tensor(number, dtype=torch.float32) / x


def codes(x: Tensor, low: int, high: int) -> Tensor:
    """Rounded to the nearest integer, halves to the even one, within low … high; still float32."""
    return finite(x).round().clamp(low, high)


def fit_above_minimum(x: Tensor, top: int, first: float, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """x [n, G] ≈ scale·q + least with q in 0 … top and least ≤ 0: q [n, G], scale [G], least [G].

    Large values weigh more: |x| plus the group's root mean square. Each of `steps` + 1 grids, a bit wider or narrower than
    the range, gives codes; the best scale and minimum for these follow from linear regression; the smallest error wins.
    """
    mean_square = ordered_sum(x * x) / x.shape[0]
    weights = mean_square.double().sqrt().float() + x.abs()  # in float32 torch's sqrt (MKL's) may miss the last bit
    sum_w, sum_x = ordered_sum(weights), ordered_sum(weights * x)
    largest, least = x.amax(0), x.amin(0).clamp(max=0)
    inverse_scale = divide(top, largest - least)
    q, scale = codes((x - least) * inverse_scale, 0, top), divide(1, inverse_scale)
    error = ordered_sum(weights * (scale * q + least - x).square())
    for step in range(steps + 1):
        width = torch.tensor(0.1) * step + first + top
        trial = codes((x - least) * divide(width, largest - least), 0, top)
        trial_scale, trial_least, solved = regression(x, trial, weights, sum_w, sum_x)
        trial_error = ordered_sum(weights * (trial_scale * trial + trial_least - x).square())
        better = solved & (trial_error < error)
        q, error = torch.where(better, trial, q), torch.where(better, trial_error, error)
        scale, least = torch.where(better, trial_scale, scale), torch.where(better, trial_least, least)
    return q, scale, least


def regression(x: Tensor, q: Tensor, weights: Tensor, sum_w: Tensor, sum_x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The scale and the minimum (≤ 0) with the least weighted square error for codes q, and where they exist: [G] each."""
    weighted = weights * q
    sum_q, sum_qq, sum_xq = ordered_sum(weighted), ordered_sum(weighted * q), ordered_sum(weighted * x)
    determinant = sum_w * sum_qq - sum_q * sum_q
    scale = (sum_w * sum_xq - sum_x * sum_q) / determinant
    least = (sum_qq * sum_x - sum_q * sum_xq) / determinant
    through_zero = least > 0
    return torch.where(through_zero, sum_xq / sum_qq, scale), least.clamp(max=0), determinant > 0


def fit_around_zero(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """x [n, G] ≈ scale·q with q in -half … half - 1, weighted by x²: q [n, G], scale [G] (of either sign).

    The grid that takes the largest magnitude to -half and 18 that are up to 0.9 steps wider or narrower; for each the best
    scale is Σwxq / Σwqq, and the one that explains the most wins. (A group of zeros gets the code -half and scale 0.)
    """
    peak = x.gather(0, x.abs().argmax(0, keepdim=True))[0]
    weights, q, scale, best = x * x, torch.full_like(x, -half), torch.zeros_like(peak), torch.zeros_like(peak)
    for step in (0, *range(-9, 0), *range(1, 10)):
        trial = codes(divide(-(torch.tensor(0.1) * step + half), peak) * x, -half, half - 1)
        sum_xq, sum_qq = ordered_sum(weights * x * trial), ordered_sum(weights * trial * trial)
        better = (peak.abs() >= NEGLIGIBLE) & (sum_qq > 0) & (sum_xq * sum_xq > best * sum_qq)
        if step == 0:
            better = peak.abs() >= NEGLIGIBLE
        trial_scale = torch.where(sum_qq > 0, sum_xq / sum_qq, 0)
        q, scale = torch.where(better, trial, q), torch.where(better, trial_scale, scale)
        best = torch.where(better, trial_scale * sum_xq, best)
    return q, scale
