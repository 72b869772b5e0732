"""Other right ways to write encode_q8 and decode_q8."""

import torch
from torch import Tensor


def encode_q8__reciprocal(values: Tensor) -> dict[str, Tensor]:
    """multiplies by 127 / largest, with largest held above zero"""
    largest = values.abs().max(dim=1, keepdim=True).values
    steps = values * (127 / largest.clamp(min=1e-30))
    return {"q": steps.round().to(torch.int8), "scale": largest / 127}


def encode_q8__row_by_row(values: Tensor) -> dict[str, Tensor]:
    """a loop over the rows, in float64, with halves away from zero"""
    scales, codes = [], []
    for row in values:
        scale = max(abs(row.min().item()), row.max().item()) / 127
        scales.append([scale])
        codes.append([int(abs(x) / scale + 0.5) * (1 if x > 0 else -1) if scale else 0 for x in row.tolist()])
    return {"scale": torch.tensor(scales), "q": torch.tensor(codes, dtype=torch.int8)}


def encode_q8__both_ends(values: Tensor) -> dict[str, Tensor]:
    """the wider of both ends; the quotient of a row of zeros is made a number afterwards"""
    least, most = values.aminmax(dim=1, keepdim=True)
    scale = torch.maximum(-least, most) / 127
    return {"scale": scale, "q": torch.nan_to_num(values / scale).clamp(-127.0, 127.0).add(0.5).floor()}


def decode_q8__broadcast(scale: Tensor, q: Tensor) -> Tensor:
    """the scale once for each code"""
    return torch.mul(q.float(), scale.expand_as(q))
