"""Other right ways to write six_bit_pairs and decode_q4_k."""

import torch
from torch import Tensor

from nanollama.quant.formats.superblock import six_bit_pairs


def six_bit_pairs__one_by_one(scales: Tensor) -> tuple[Tensor, Tensor]:
    """as ggml's get_scale_min_k4 has it: a branch for each half"""
    byte = [column.to(torch.int32) for column in scales.unbind(1)]
    pairs = []
    for j in range(8):
        if j < 4:
            pairs.append((byte[j] & 63, byte[j + 4] & 63))
        else:
            pairs.append((byte[j + 4] & 15 | byte[j - 4] >> 6 << 4, byte[j + 4] >> 4 | byte[j] >> 6 << 4))
    return torch.stack([pair[0] for pair in pairs], 1), torch.stack([pair[1] for pair in pairs], 1)


def six_bit_pairs__arithmetic(scales: Tensor) -> tuple[Tensor, Tensor]:
    """remainders and quotients in floating point, three groups of four bytes"""
    first, second, third = scales.float().split(4, dim=1)
    high = [(each / 64).floor() * 16 for each in (first, second)]
    low = [third % 16, (third / 16).floor()]
    return torch.cat([first % 64, low[0] + high[0]], 1), torch.cat([second % 64, low[1] + high[1]], 1)


def decode_q4_k__by_sub_blocks(d: Tensor, dmin: Tensor, scales: Tensor, qs: Tensor) -> Tensor:
    """a loop over the four pairs of sub-blocks"""
    scale, minimum = six_bit_pairs(scales)
    parts = []
    for pair in range(4):
        chunk = qs[:, 32 * pair : 32 * pair + 32]
        for j, code in ((2 * pair, chunk & 15), (2 * pair + 1, chunk >> 4)):
            parts.append(d * scale[:, j : j + 1] * code - dmin * minimum[:, j : j + 1])
    return torch.cat(parts, dim=1)


def decode_q4_k__stacked(d: Tensor, dmin: Tensor, scales: Tensor, qs: Tensor) -> Tensor:
    """codes [N, 4, 2, 32] against numbers [N, 4, 2, 1]"""
    scale, minimum = (each.view(-1, 4, 2, 1) for each in six_bit_pairs(scales))
    code = torch.stack([qs.view(-1, 4, 32) % 16, qs.view(-1, 4, 32) // 16], dim=2)
    return (d[:, :, None, None] * scale) * code - dmin[:, :, None, None] * minimum
