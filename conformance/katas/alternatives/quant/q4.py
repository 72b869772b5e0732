"""Other right ways to write encode_q4 and decode_q4."""

import torch
from torch import Tensor

from nanollama.quant.formats.rowwise import GROUP


def encode_q4__group_by_group(values: Tensor) -> dict[str, Tensor]:
    """a loop over groups; bytes are put together by sums"""
    missing = -values.shape[1] % GROUP
    filled = torch.nn.functional.pad(values[:, None], (0, missing), mode="replicate")[:, 0] if missing else values
    scales, minima, codes = [], [], []
    for group in filled.split(GROUP, dim=1):
        minimum = group.min(dim=1, keepdim=True).values
        scale = ((group.max(dim=1, keepdim=True).values - minimum) / 15).half().float()
        steps = (group - minimum.half().float()) / scale.clamp(min=1e-12) * (scale > 0)
        code = steps.round().clamp(0, 15).to(torch.uint8)
        scales.append(scale)
        minima.append(minimum)
        codes.append(code[:, 0::2] + 16 * code[:, 1::2])
    return {"scale": torch.cat(scales, 1), "minimum": torch.cat(minima, 1), "q": torch.cat(codes, 1)}


def encode_q4__nearest_level(values: Tensor) -> dict[str, Tensor]:
    """every level is tried, and the nearest taken"""
    missing = -values.shape[1] % GROUP
    groups = torch.cat([values] + [values[:, -1:]] * missing, dim=1).unflatten(1, (-1, GROUP))
    minimum = groups.amin(2).half()
    scale = ((groups.amax(2) - groups.amin(2)) / 15).half()
    levels = minimum.float()[..., None, None] + scale.float()[..., None, None] * torch.arange(16.0)
    code = (groups[..., None] - levels).abs().argmin(-1).flatten(1).to(torch.uint8)
    return {"q": code[:, 1::2] << 4 | code[:, ::2], "scale": scale, "minimum": minimum}


def decode_q4__repeated(scale: Tensor, minimum: Tensor, q: Tensor, columns: int) -> Tensor:
    """scale and minimum repeated for every weight, codes by remainder and quotient"""
    code = torch.stack([q % 16, q // 16], dim=2).flatten(1)[:, :columns]
    wide = [each.repeat_interleave(GROUP, dim=1)[:, :columns] for each in (scale, minimum)]
    return torch.addcmul(wide[1], wide[0], code.float())
