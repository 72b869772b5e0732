"""Other right ways to write Q4_0 and Q8_0."""

import torch
from torch import Tensor


def nibbles__by_hand(qs: Tensor) -> Tensor:
    """mask and shift, one after the other"""
    return torch.cat([qs & 15, qs >> 4], dim=1).to(torch.int8)


def decode_q4_0__float(d: Tensor, qs: Tensor) -> Tensor:
    """in floating point from the start"""
    return torch.cat([qs % 16, qs // 16], dim=1).float().sub(8.0).mul(d)


def decode_q8_0__row_by_row(d: Tensor, qs: Tensor) -> Tensor:
    """a loop over the blocks"""
    return torch.stack([scale.item() * row.float() for scale, row in zip(d, qs, strict=True)])


def around_zero__two_ends(values: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """a loop over the blocks, in which Python finds the outermost value"""
    scales, rows = [], []
    for row in values:
        d = max(row.tolist(), key=abs) / -half
        inverse_d = torch.tensor(1.0) / torch.tensor(d) if d else torch.tensor(0.0)
        rows.append((row * inverse_d + half + 0.5).floor().clamp(0, 2 * half - 1).to(torch.uint8))
        scales.append([d])
    return torch.tensor(scales), torch.stack(rows)


def encode_q8_0__halves(values: Tensor) -> dict[str, Tensor]:
    """sign and magnitude apart; where there is no reciprocal it is 0"""
    largest = values.abs().max(dim=1, keepdim=True).values
    d = largest / 127
    steps = values.abs() * torch.where(d > 0, d.reciprocal(), torch.zeros_like(d))
    whole = steps.trunc()
    codes = (whole + (steps - whole >= 0.5)).copysign(values)
    return {"d": d, "qs": codes.to(torch.int8)}
