"""Small unsigned numbers in bytes: the packing scheme that all block formats share."""

import torch
from torch import Tensor


def unpack(packed: Tensor, bits: int, run: int) -> Tensor:
    """Take numbers of 1, 2 or 4 bits out of bytes: uint8 [N, n] → int8 [N, n · 8/bits], each 0 ≤ q < 2^bits.

    `run` consecutive bytes form a group: first the low bits of each of them, then the next higher bits of each.
    Two nibbles with run 1: bytes 0x21 0x43 are 1 2 3 4. With run 2 they are 1 3 2 4.
    """
    grouped = packed.contiguous().view(packed.shape[0], -1, run)  # contiguous, and shifted by numbers: three times as fast
    spread = torch.stack([grouped >> shift for shift in range(0, 8, bits)], dim=2)
    return (spread & (1 << bits) - 1).view(torch.int8).reshape(packed.shape[0], -1)


def pack(numbers: Tensor, bits: int, run: int) -> Tensor:
    """The inverse of `unpack`: [N, n · 8/bits] → uint8 [N, n]."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)[:, None]
    spread = numbers.to(torch.uint8).reshape(numbers.shape[0], -1, 8 // bits, run) << shifts
    return spread.sum(dim=2, dtype=torch.uint8).reshape(numbers.shape[0], -1)


def scaled(scales: Tensor, numbers: Tensor) -> Tensor:
    """Each of G scales times its n/G numbers: [N, G], [N, n] → [N, G, n/G]."""
    return scales[:, :, None] * numbers.reshape(*scales.shape, -1)


def inverse(scale: Tensor) -> Tensor:
    """1 / scale in float32, and 0 for 0."""
    return torch.where(scale == 0, 0, 1 / scale)


def finite(scaled_values: Tensor) -> Tensor:
    """The values with 0 for infinite and NaN: the reciprocal of a scale below 2^-128 is infinite.

    C leaves the cast of such codes undefined (zero on x86). It never matters: as float16 that scale is 0.
    """
    return torch.nan_to_num(scaled_values, nan=0.0, posinf=0.0, neginf=0.0)


def round_half_away(x: Tensor) -> Tensor:
    """C's roundf: 0.5 → 1, -0.5 → -1, 2.5 → 3 (torch.round goes to the even neighbour)."""
    whole = x.abs().floor()
    return x.sign() * (whole + (2 * (x.abs() - whole)).floor())
