"""Encoding of every block format: by hand, by a plain definition of the scale search, and by the bytes that ggml writes."""

from collections.abc import Callable, Sequence

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conformance.checks import check
from conformance.checks.assertions import expect, expect_close, expect_equal, expect_equal_tensor
from conformance.checks.generation.rigged import blamed
from conformance.checks.quant.decode import HOMES, goldens, place_of
from conformance.truth.quant_exact import awkward_values
from nanollama.quant.formats import codebook, fit, superblock, table, ternary, uniform

F = np.float32
Floats = NDArray[np.float32]


def awkward(seed: int, groups: int, size: int) -> Floats:
    """Groups of normal numbers of many scales, with a zero, a constant and a one-sided group."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((groups, size)) * 2.0 ** random.integers(-9, 9, (groups, 1))
    values[0], values[1], values[2], values[3] = 0, 0.75, np.abs(values[2]) + 1, -np.abs(values[3]) - 1
    values[4] = random.integers(-8, 9, size) / 2
    return values.astype(F)


def total(numbers: Sequence[np.float32] | Floats) -> np.float32:
    """The sum from first to last, rounded to float32 after each addition."""
    sum_ = F(0)
    for number in numbers:
        sum_ = F(sum_ + number)
    return sum_


@check("QUNT-020", area="quantization")
def sums_divisions_and_codes_round_once() -> None:
    values = torch.from_numpy(awkward(1, 6, 32))
    wanted = torch.tensor([float(total(row)) for row in values.T.numpy()], dtype=torch.float32)
    expect_equal_tensor("quant.formats.fit.ordered_sum", fit.ordered_sum(values.unbind()), wanted, "sums of rows in order")
    wanted = torch.from_numpy((F(7) / awkward(2, 6, 4)[4:]).astype(F))
    expect_equal_tensor("quant.formats.fit.divide", fit.divide(7, torch.from_numpy(awkward(2, 6, 4)[4:])), wanted, "quotients")
    given = torch.tensor([0.5, 1.5, 2.5, -0.5, 99.0, -99.0, float("inf"), float("nan")])
    expect_equal(
        "quant.formats.fit.codes",
        fit.codes(given, -3, 4).tolist(),
        [0.0, 2.0, 2.0, 0.0, 4.0, -3.0, 0.0, 0.0],
        "codes from -3 to 4",
    )
    given = torch.tensor([0.5, 1.5, 2.6, -9.0, 9.0])
    expect_equal(
        "quant.formats.fit.round_to", fit.round_to(0, 4, given).tolist(), [0.0, 2.0, 3.0, 0.0, 4.0], "rounded from 0 to 4"
    )


def error_of(x: Floats, q: Floats, scale: np.float32, least: np.float32, weights: Floats) -> np.float32:
    off = (scale * q + least) - x
    return total(weights * (off * off))


def search_above_minimum(x: Floats, top: int, first: float, steps: int) -> tuple[Floats, np.float32, np.float32]:
    """One group: ggml's make_qkx2_quants with weights √(Σx²/n) + |x|, step 0.1 and squared errors."""
    weights = F(np.sqrt(np.float64(total(x * x) / F(len(x))))) + np.abs(x)
    sum_w, sum_x = total(weights), total(weights * x)
    least, largest = min(x.min(), F(0)), x.max()
    if largest == least:
        return np.zeros_like(x), F(0), least
    inverse = F(top) / (largest - least)
    scale = F(1) / inverse
    q = np.clip(np.rint(inverse * (x - least)), 0, top)
    best = error_of(x, q, scale, least, weights)
    for step in range(steps + 1):
        inverse = ((F(0.1) * F(step) + F(first)) + F(top)) / (largest - least)
        trial = np.clip(np.rint(inverse * (x - least)), 0, top).astype(F)
        sum_q, sum_qq, sum_xq = total(weights * trial), total(weights * trial * trial), total(weights * trial * x)
        determinant = sum_w * sum_qq - sum_q * sum_q
        if determinant <= 0:
            continue
        new_scale = (sum_w * sum_xq - sum_x * sum_q) / determinant
        new_least = (sum_qq * sum_x - sum_q * sum_xq) / determinant
        if new_least > 0:
            new_scale, new_least = sum_xq / sum_qq, F(0)
        error = error_of(x, trial, new_scale, new_least, weights)
        if error < best:
            q, best, scale, least = trial, error, new_scale, new_least
    return q, scale, least


@check("QUNT-021", area="quantization")
def a_scale_and_a_minimum_are_found_by_regression_over_grids() -> None:
    for top, first, steps in ((15, -1.0, 20), (31, -0.5, 15), (3, -0.5, 4)):
        x = awkward(top, 16, 32)
        with np.errstate(all="ignore"):
            wanted = [search_above_minimum(row, top, first, steps) for row in x]
        q, scale, least = fit.fit_above_minimum(torch.from_numpy(x.T.copy()), top, first, steps)
        restored, best = scale * q + least, torch.tensor(np.array([w[1] * w[0] + w[2] for w in wanted])).T
        lost = [(restored - torch.from_numpy(x.T)).square().sum().item(), (best - torch.from_numpy(x.T)).square().sum().item()]
        place = "quant.formats.fit.fit_above_minimum"
        expect_equal_tensor(
            place, q.T, torch.tensor(np.array([w[0] for w in wanted]), dtype=torch.float32), f"codes up to {top}"
        )
        expect_close(place, least, torch.tensor([float(w[2]) for w in wanted]), 1e-6, "minimums")
        expect(
            place, abs(lost[0] - lost[1]) <= 1e-5 * lost[1], f"the squared error is {lost[0]}, with the best grids {lost[1]}"
        )


def search_around_zero(x: Floats, half: int) -> tuple[Floats, np.float32]:
    """One group: ggml's make_qx_quants with weights x²."""
    peak = x[np.abs(x).argmax()]
    if abs(peak) < 1e-15:
        return np.full_like(x, -half), F(0)
    weights = x * x
    found: tuple[Floats, np.float32] = (np.zeros_like(x), F(0))
    best = F(0)
    for step in (0, *range(-9, 0), *range(1, 10)):
        inverse = -(F(0.1) * F(step) + F(half)) / peak
        q = np.clip(np.rint(inverse * x), -half, half - 1).astype(F)
        sum_xq, sum_qq = total(weights * x * q), total(weights * q * q)
        if sum_qq > 0 and (step == 0 or sum_xq * sum_xq > best * sum_qq):
            scale = sum_xq / sum_qq
            found, best = (q, scale), scale * sum_xq
    return found


@check("QUNT-022", area="quantization")
def a_scale_around_zero_has_the_smallest_error() -> None:
    for half, groups in ((32, 90), (4, 16)):
        x = awkward(half, groups, 16)
        wanted = [search_around_zero(row, half) for row in x]
        q, scale = fit.fit_around_zero(torch.from_numpy(x.T.copy()), half)
        place = "quant.formats.fit.fit_around_zero"
        expect_equal_tensor(
            place, q.T.float(), torch.tensor(np.array([w[0] for w in wanted]), dtype=torch.float32), f"codes of ±{half}"
        )
        expect_close(place, scale, torch.tensor([float(w[1]) for w in wanted]), 1e-6, "scales")


@check("QUNT-023", area="quantization")
def uniform_levels_are_chosen_as_ggml_does() -> None:
    values = torch.tensor([[1.0, -8.0, 8.0, 0.49, 0.5, 7.6, *[0.0] * 26], [0.0] * 32])
    d, q = uniform.around_zero(values, 8)
    expect_equal(
        "quant.formats.uniform.around_zero",
        d.tolist(),
        [[1.0], [0.0]],
        "scales: the first of the largest magnitudes becomes -8",
    )
    expect_equal("quant.formats.uniform.around_zero", q[:, :7].tolist(), [[9, 0, 15, 8, 9, 15, 8], [8] * 7], "codes")
    values = torch.tensor([[1.0, 31.0, 1.9, 2.1, *[5.0] * 28], [-2.0] * 32])
    d, m, q = uniform.above_minimum(values, 15)
    expect_equal(
        "quant.formats.uniform.above_minimum",
        (d.tolist(), m.tolist()),
        ([[2.0], [0.0]], [[1.0], [-2.0]]),
        "scales and minimums",
    )
    expect_equal("quant.formats.uniform.above_minimum", q[:, :5].tolist(), [[0, 15, 0, 1, 2], [0] * 5], "codes")
    d, trits = ternary.nearest_trits(torch.tensor([[2.0, -2.0, 1.0, -1.0, 0.9, -0.9, *[0.0] * 250], [0.0] * 256]))
    expect_equal("quant.formats.ternary.nearest_trits", d.tolist(), [[2.0], [0.0]], "scales")
    expect_equal("quant.formats.ternary.nearest_trits", trits[:, :7].tolist(), [[2, 0, 2, 0, 1, 1, 1], [1] * 7], "digits")
    d, q = superblock.to_six_bits(torch.tensor([[63.0, 1.0, 0.4, 31.5, 32.5, 0.0, -5.0, 2.0], [0.0] * 8, [-1.0] * 8]))
    expect_equal("quant.formats.superblock.to_six_bits", d.tolist(), [[1.0], [0.0], [0.0]], "scales of scales")
    wanted_q = [[63.0, 1.0, 0.0, 32.0, 32.0, 0.0, 0.0, 2.0], [0.0] * 8, [0.0] * 8]
    expect_equal("quant.formats.superblock.to_six_bits", q.tolist(), wanted_q, "six-bit scales")
    grouped = superblock.groups(torch.arange(512.0).reshape(2, 256), 32)
    expect_equal(
        "quant.formats.superblock.groups",
        grouped[:, [0, 1, 8]].T[:, :2].tolist(),
        [[0.0, 1.0], [32.0, 33.0], [256.0, 257.0]],
        "groups in columns",
    )


def encoder(name: str) -> Callable[[Tensor], Tensor]:
    """The module's current function, its fields concatenated as bytes."""
    format, function = table.FORMATS[name], getattr(HOMES[name], f"encode_{name.lower()}")

    def encode(values: Tensor) -> Tensor:
        with blamed(place_of(name, "encode")):
            fields = function(values)
            parts = [fields[key].to(field.dtype).contiguous().view(torch.uint8) for key, field in format.layout.items()]
            return torch.cat(parts, dim=1)

    return encode


@check("QUNT-021", "QUNT-025", area="quantization")
def the_k_formats_search_the_grids_that_ggml_searches() -> None:
    values = torch.from_numpy(awkward(9, 300, 256))
    for name, top, first, steps in (("q4_k", 15, -1.0, 20), ("q5_k", 31, -0.5, 15)):
        with blamed("quant.formats.superblock.encode_with_minimum"):
            wanted, _ = superblock.encode_with_minimum(values, top, first, steps)
        with blamed(f"quant.formats.superblock.encode_{name}"):
            got = getattr(superblock, f"encode_{name}")(values)
        for field in ("d", "dmin", "scales"):
            expect_equal_tensor(f"quant.formats.superblock.encode_{name}", got[field], wanted[field], f"{field} of {name}")


WRITTEN = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4", "Q4_K", "Q5_K", "Q6_K")


@check("QUNT-024", "QUNT-025", "QUNT-026", area="quantization", each=WRITTEN)
def blocks_are_written_as_ggml_writes_them(name: str) -> None:
    format, place = table.FORMATS[name], place_of(name, "encode")
    for kind in ("written", "awkward"):
        if f"{name}/{kind}/input" not in goldens():
            continue
        values = goldens()[f"{name}/{kind}/input"].reshape(-1, format.block_size)
        wanted = goldens()[f"{name}/{kind}/blocks"].reshape(-1, format.block_bytes)
        expect_equal_tensor(place, encoder(name)(values), wanted, f"{kind} {name} blocks")
        expect_equal_tensor(place, format.encode(values), wanted, f"{kind} {name} blocks through the table")


@check("QUNT-002", "QUNT-024", "QUNT-026", area="quantization", each=WRITTEN[:8])
def awkward_numbers_are_written_as_the_peer_writes_them(name: str) -> None:
    format, place = table.FORMATS[name], place_of(name, "encode")
    for kind, values in awkward_values(format.block_size, 2, np.random.default_rng(3)):
        if kind == "zeros of both signs":  # the peer's minimum of -0 and 0 may be either
            continue
        with np.errstate(all="ignore"):
            wanted = gguf.quants.quantize(values, gguf.GGMLQuantizationType[name]).view(np.uint8).reshape(2, -1)
        expect_equal_tensor(
            place, encoder(name)(torch.from_numpy(values)), torch.from_numpy(wanted.copy()), f"{kind} as {name}"
        )


@check("QUNT-026", area="quantization")
def mxfp4_takes_the_nearest_of_its_values() -> None:
    values = torch.tensor(
        [[6.0, -6.0, 0.25, 0.26, 0.75, 0.76, 1.25, 1.3, 5.0, 5.1, -0.3, -0.1, 2.5, 3.5, *[0.0] * 18], [0.0] * 32]
    )
    fields = codebook.encode_mxfp4(values)
    expect_equal("quant.formats.codebook.encode_mxfp4", fields["e"].flatten().tolist(), [127, 0], "exponents")
    low = [byte & 15 for byte in fields["qs"][0].tolist()][:14]
    expect_equal(
        "quant.formats.codebook.encode_mxfp4",
        low,
        [7, 15, 0, 1, 1, 2, 2, 3, 6, 7, 9, 0, 4, 5],
        "codes; a middle goes to the lower",
    )
    expect_equal("quant.formats.codebook.encode_mxfp4", fields["qs"][1].tolist(), [0] * 16, "codes of zeros")
    rows = torch.zeros(4, 32)
    rows[:, 0] = torch.tensor([-6.0, 1024 - 2.0**-14, 3e38, 3.4028234e38])
    fields = codebook.encode_mxfp4(rows)
    expect_equal(
        "quant.formats.codebook.encode_mxfp4", fields["e"].flatten().tolist(), [127, 135, 252, 253], "exponents of rare numbers"
    )
    expect_equal(
        "quant.formats.codebook.encode_mxfp4", [byte & 15 for byte in fields["qs"][:, 0].tolist()], [15, 6, 7, 5], "their codes"
    )


@check("QUNT-027", area="quantization")
def zeros_and_small_numbers_never_become_nan() -> None:
    for name in WRITTEN:
        format = table.FORMATS[name]
        for fill in (0.0, 1e-40, -1e-30):
            values = torch.full((1, format.block_size), fill)
            values[0, :3] = torch.tensor([0.0, -fill, fill])
            back = format.decode(encoder(name)(values))
            expect(place_of(name, "encode"), bool(back.isfinite().all()), f"{name} makes {fill} not finite")
            expect(place_of(name, "encode"), float(back.abs().max()) <= 1e-9, f"{name} makes {fill} large")
