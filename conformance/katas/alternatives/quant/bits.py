"""Other right ways to write unpack and pack."""

import torch
from torch import Tensor


def unpack__remainders(packed: Tensor, bits: int, run: int) -> Tensor:
    """division and remainder instead of shift and mask, a run after the other"""
    parts = []
    for group in packed.split(run, dim=1):
        parts += [group // 2**low % 2**bits for low in range(0, 8, bits)]
    return torch.cat(parts, dim=1).to(torch.int8)


def unpack__indexed(packed: Tensor, bits: int, run: int) -> Tensor:
    """for every number its byte and its shift, by arithmetic on its place"""
    per_byte = 8 // bits
    place = torch.arange(packed.shape[1] * per_byte)
    group, rest = place // (run * per_byte), place % (run * per_byte)
    shift = (rest // run * bits).to(torch.uint8)
    return (packed[:, group * run + rest % run] >> shift & 2**bits - 1).to(torch.int8)


def pack__or(numbers: Tensor, bits: int, run: int) -> Tensor:
    """bits are joined one place after the other"""
    grouped = numbers.to(torch.uint8).view(len(numbers), -1, 8 // bits, run)
    out = torch.zeros_like(grouped[:, :, 0])
    for place in range(8 // bits):
        out |= grouped[:, :, place] << place * bits
    return out.flatten(1)


def pack__matrix(numbers: Tensor, bits: int, run: int) -> Tensor:
    """a product with powers of two"""
    powers = 2.0 ** torch.arange(0, 8, bits)
    grouped = numbers.reshape(len(numbers), -1, 8 // bits, run).float()
    return torch.einsum("ngbr,b->ngr", grouped, powers).reshape(len(numbers), -1).to(torch.uint8)
