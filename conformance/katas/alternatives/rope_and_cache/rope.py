"""Other right ways to write the frequencies and the rotation."""

import math

import torch
from torch import Tensor


def rotate__complex(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """a rotation is the product of two complex numbers"""
    dim = 2 * cos.shape[-1]
    a, b = x[..., :dim].to(cos.dtype).chunk(2, -1)
    turned = torch.complex(a, b) * torch.complex(cos, sin)
    return torch.cat([turned.real.to(x.dtype), turned.imag.to(x.dtype), x[..., dim:]], -1)


def rotate__half(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """transformers' rotate_half: x · cos + (-b, a) · sin"""
    dim = 2 * cos.shape[-1]
    wide = x[..., :dim].to(cos.dtype)
    half = torch.cat((-wide[..., dim // 2 :], wide[..., : dim // 2]), -1)
    turned = wide * torch.cat((cos, cos), -1) + half * torch.cat((sin, sin), -1)
    return torch.cat((turned.to(x.dtype), x[..., dim:]), -1)


def rotate__in_a_copy(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """written into a copy, half by half"""
    size, out = cos.shape[-1], x.clone()
    a, b = x[..., :size].to(cos.dtype), x[..., size : 2 * size].to(cos.dtype)
    out[..., :size] = (a * cos - b * sin).to(x.dtype)
    out[..., size : 2 * size] = (b * cos + a * sin).to(x.dtype)
    return out


def default_frequencies__exponential(theta: float, dim: int) -> Tensor:
    """exp of a multiple of log theta"""
    exponents = torch.arange(dim // 2, dtype=torch.float64) * (2 / dim)
    return torch.exp(-math.log(theta) * exponents)


def default_frequencies__one_by_one(theta: float, dim: int) -> Tensor:
    """Python's power, one frequency at a time"""
    return torch.tensor([1 / theta ** (2 * j / dim) for j in range(dim // 2)], dtype=torch.float64)
