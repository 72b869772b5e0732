"""The search for the scales of K formats: weighted least squares over a few grids.

A group is a column: x is [n, G], n values of each of G groups, so that a sum over a group adds whole rows in order. That
order, and one rounding per operation, gives the same bits as ggml's C (`make_qkx2_quants`, `make_qx_quants` in
ggml-quants.c) when it is compiled without fused multiply-add. A C build that fuses differs in a few codes.

Nearly all the time goes into about 240 passes over [n, G]: they write to the same few buffers (`out=`), as fresh memory costs
more than the arithmetic. Of the best grid its parameters are kept, not its codes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from nanollama.quant.formats.bits import finite

NEGLIGIBLE = 1e-15  # groups with no larger magnitude count as zero


def ordered_sum(rows: Sequence[Tensor]) -> Tensor:
    """The sum of the rows, added from the first to the last."""
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total


def divide(number: float | Tensor, x: Tensor) -> Tensor:
    """number / x with one rounding (torch's `number / x` is number · (1/x), with two)."""
    return torch.as_tensor(number, dtype=torch.float32) / x


def codes(x: Tensor, low: int, high: int) -> Tensor:
    """Rounded to the nearest integer, halves to the even one, within low … high; still float32."""
    return finite(x).round().clamp(low, high)


def round_to(low: int, high: int, x: Tensor) -> Tensor:
    """`codes` in place, where x is finite already."""
    return x.round_().clamp_(low, high)


def fit_above_minimum(x: Tensor, top: int, first: float, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """x [n, G] ≈ scale·q + minimum with q in 0 … top and minimum ≤ 0: q [n, G], scale [G], minimum [G].

    Large values weigh more: |x| plus the group's root mean square. Each of `steps` + 1 grids, a bit wider or narrower than
    the range, gives codes; linear regression gives the best scale and minimum for these. The grid with the smallest error
    is chosen, and later grids start from its minimum.
    """
    mean_square = ordered_sum((x * x).unbind()) / x.shape[0]
    weights = x.abs().add_(mean_square.double().sqrt().float())  # in float32 torch's sqrt (MKL's) may miss the last bit
    sums = ordered_sum(weights.unbind()), ordered_sum((weights * x).unbind())
    largest, minimum = x.amax(0), x.amin(0).clamp(max=0)
    q, work = torch.empty_like(x), Workspace(x.new_empty(3, *x.shape))

    def grid(minimum: Tensor, inverse_scale: Tensor) -> Tensor:
        return round_to(0, top, torch.sub(x, minimum, out=q).mul_(inverse_scale))

    inverse_scale = divide(top, largest - minimum)
    scale, best = divide(1, inverse_scale), (minimum, finite(inverse_scale))
    error = weighted_error(x, grid(*best), scale, minimum, weights, work)
    for step in range(steps + 1):
        inverse_scale = finite(divide(torch.tensor(0.1) * step + first + top, largest - minimum))
        trial_scale, trial_minimum, solved = regression(x, grid(minimum, inverse_scale), weights, *sums, work)
        trial_error = weighted_error(x, q, trial_scale, trial_minimum, weights, work)
        better = solved & (trial_error < error)
        error, scale = torch.where(better, trial_error, error), torch.where(better, trial_scale, scale)
        best = torch.where(better, minimum, best[0]), torch.where(better, inverse_scale, best[1])
        minimum = torch.where(better, trial_minimum, minimum)
    return grid(*best), scale, minimum


class Workspace:
    """Buffers [k, n, G], with views for sums over n: of all k, and of the first."""

    def __init__(self, buffers: Tensor) -> None:
        self.buffers = buffers.unbind(0)
        self.rows, self.first_rows = buffers.unbind(1), buffers[0].unbind(0)


def weighted_error(x: Tensor, q: Tensor, scale: Tensor, minimum: Tensor, weights: Tensor, work: Workspace) -> Tensor:
    """Σ weights·(scale·q + minimum - x)², [G]."""
    difference = torch.mul(q, scale, out=work.buffers[0]).add_(minimum).sub_(x)
    difference.mul_(difference).mul_(weights)
    return ordered_sum(work.first_rows)


def regression(
    x: Tensor, q: Tensor, weights: Tensor, sum_w: Tensor, sum_x: Tensor, work: Workspace
) -> tuple[Tensor, Tensor, Tensor]:
    """The scale and the minimum (≤ 0) with the smallest weighted square error for codes q, and whether they exist: [G] each."""
    weighted, squared, crossed = work.buffers
    torch.mul(weights, q, out=weighted)
    torch.mul(weighted, q, out=squared)
    torch.mul(weighted, x, out=crossed)
    sum_q, sum_qq, sum_xq = ordered_sum(work.rows)
    determinant = sum_w * sum_qq - sum_q * sum_q
    scale = (sum_w * sum_xq - sum_x * sum_q) / determinant
    minimum = (sum_qq * sum_x - sum_q * sum_xq) / determinant
    through_zero = minimum > 0
    return torch.where(through_zero, sum_xq / sum_qq, scale), minimum.clamp(max=0), determinant > 0


def fit_around_zero(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """x [n, G] ≈ scale·q with q in -half … half - 1, weighted by x²: q [n, G], scale [G] (of either sign).

    It tries the grid that maps the largest magnitude to -half, and 18 that are up to 0.9 steps wider or narrower. The best
    scale of each is Σwxq / Σwqq; the grid with the smallest error is chosen. (A group of zeros: code -half, scale 0.)
    """
    peak = x.gather(0, x.abs().argmax(0, keepdim=True))[0]
    is_zero = peak.abs() < NEGLIGIBLE
    weights = x * x
    weighted_x, q, work = weights * x, torch.empty_like(x), Workspace(x.new_empty(2, *x.shape))
    grid, scale, best = torch.zeros_like(peak), torch.zeros_like(peak), torch.zeros_like(peak)
    for step in (0, *range(-9, 0), *range(1, 10)):
        trial = finite(divide(-(torch.tensor(0.1) * step + half), peak))
        round_to(-half, half - 1, torch.mul(x, trial, out=q))
        torch.mul(weighted_x, q, out=work.buffers[0])
        torch.mul(weights, q, out=work.buffers[1]).mul_(q)
        sum_xq, sum_qq = ordered_sum(work.rows)
        better = ~is_zero & (sum_qq > 0) & (sum_xq * sum_xq > best * sum_qq) if step else ~is_zero
        trial_scale = torch.where(sum_qq > 0, sum_xq / sum_qq, 0)
        grid, scale = torch.where(better, trial, grid), torch.where(better, trial_scale, scale)
        best = torch.where(better, trial_scale * sum_xq, best)
    return torch.where(is_zero, -half, round_to(-half, half - 1, torch.mul(x, grid, out=q))), scale
