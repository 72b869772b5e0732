"""Other right ways to write MoE.route and MoE.forward."""

import torch
from torch import Tensor

from nanollama.model.layers import MoE, at_least_float32


def MoE_route__chosen_first(self: MoE, logits: Tensor) -> tuple[Tensor, Tensor]:
    """the best logits first; a softmax over these where they are renormalised, and a division by the whole sum where not"""
    wide = logits.to(at_least_float32(logits.dtype))
    best, chosen = torch.topk(wide, self.top_k, dim=-1)
    if self.renormalise:
        return torch.softmax(best, dim=-1), chosen
    return (best - wide.logsumexp(-1, keepdim=True)).exp(), chosen


def MoE_route__sorted(self: MoE, logits: Tensor) -> tuple[Tensor, Tensor]:
    """a whole sort, of which the beginning is kept"""
    probabilities = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
    ranked, order = probabilities.sort(-1, descending=True)
    weights, chosen = ranked[:, : self.top_k], order[:, : self.top_k]
    return (weights / weights.sum(-1)[:, None] if self.renormalise else weights), chosen


def MoE_forward__token_by_token(self: MoE, x: Tensor) -> Tensor:
    """a loop over tokens and their experts"""
    tokens = x.reshape(-1, x.shape[-1])
    weights, chosen = self.route(self.gate(tokens))
    outs = []
    for token, own, experts in zip(tokens, weights, chosen.tolist(), strict=True):
        answers = [self.experts[expert](token[None])[0] for expert in experts]
        outs.append(sum((w.to(x.dtype) * answer for w, answer in zip(own, answers, strict=True)), torch.zeros_like(token)))
    return torch.stack(outs).reshape(x.shape)


def MoE_forward__table(self: MoE, x: Tensor) -> Tensor:
    """a table of every token's weight for every expert, mostly zeros"""
    tokens = x.reshape(-1, x.shape[-1])
    weights, chosen = self.route(self.gate(tokens))
    table = torch.zeros(len(tokens), len(self.experts), dtype=weights.dtype).scatter(1, chosen, weights)
    out = torch.zeros(tokens.shape, dtype=weights.dtype)
    for column, expert in zip(table.mT, self.experts, strict=True):
        used = column.nonzero()[:, 0]
        if len(used) > 0:
            out[used] += column[used, None] * expert(tokens[used])
    return out.to(x.dtype).view_as(x)
