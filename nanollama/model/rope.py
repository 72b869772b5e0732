"""Rotary position embeddings (RoFormer, arXiv 2104.09864) and the methods that extend them beyond the trained length.

Contested conventions, decided here once:

* *Pairing.* Dimension j is rotated together with dimension j + dim/2, as Hugging Face checkpoints store it. The RoFormer
  paper, Meta's files and GGUF's `llama` pair the neighbours 2j and 2j+1; the rows of q_proj and k_proj differ.
* *Length.* "dynamic" and "longrope" have frequencies that depend on the length of the sequence. Keys are cached rotated,
  so a cache needs one length for all its tokens: the row's limit, as in llama.cpp and vLLM. Without a cache it is the number
  of positions of the call, as in transformers (which recomputes everything when a sequence crosses the original length).
* *Precision.* Angles are computed in float64 on the CPU: at position 100,000 a float32 angle is wrong in the third digit.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RopeConfig:
    """The parameters of one rotation. `dim` is the number of rotated dimensions of a head (even, at most head_dim)."""

    dim: int
    theta: float
    rope_type: str = "default"
    factor: float = 1.0
    original_length: int = 0  # the trained length ("dynamic": max_position_embeddings)
    attention_factor: float = 1.0  # multiplies cos and sin, so q·k grows by its square
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    @property
    def depends_on_length(self) -> bool:
        """Whether the frequencies change with the length of the sequence."""
        return self.rope_type in ("dynamic", "longrope")


def default_frequencies(theta: float, dim: int) -> Tensor:
    """theta^(-2j/dim) for j = 0 … dim/2-1: radians per position, float64 [dim/2] on the CPU."""
    return theta ** (-torch.arange(0, dim, 2, dtype=torch.float64, device="cpu") / dim)


def linear_frequencies(rope: RopeConfig, length: int) -> Tensor:
    """Position interpolation (arXiv 2306.15595): every position divided by `factor`. float64 [dim/2]."""
    return default_frequencies(rope.theta, rope.dim) / rope.factor


def dynamic_frequencies(rope: RopeConfig, length: int) -> Tensor:
    """Dynamic NTK: beyond the trained length theta grows with `length`, so that the slowest wave just fits. float64 [dim/2]."""
    stretch = rope.factor * max(length, rope.original_length) / rope.original_length - (rope.factor - 1)
    return default_frequencies(rope.theta * stretch ** (rope.dim / (rope.dim - 2)), rope.dim)


def llama3_frequencies(rope: RopeConfig, length: int) -> Tensor:
    """Llama 3.1: a wave of up to low_freq_factor turns within the trained length is slowed by `factor`, one of high_freq_factor
    or more is kept, and between them both are mixed in proportion to the turns. float64 [dim/2]."""
    freq = default_frequencies(rope.theta, rope.dim)
    turns = rope.original_length * freq / (2 * math.pi)  # rotations within the trained length
    keep = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    keep = keep.clamp(0, 1)
    return keep * freq + (1 - keep) * freq / rope.factor


def yarn_frequencies(rope: RopeConfig, length: int) -> Tensor:
    """YaRN (arXiv 2309.00071): a linear ramp over the waves from kept (fast) to slowed by `factor` (slow). float64 [dim/2].

    It goes from where a wave makes beta_fast turns within the trained length to where it makes beta_slow: rounded outwards to
    whole waves if `truncate`, never below 0 nor beyond dim - 1; where both are the same, it is 0.001 wide.
    """
    freq = default_frequencies(rope.theta, rope.dim)

    def dimension(turns: float) -> float:  # the j whose wave makes so many turns within the trained length
        return rope.dim * math.log(rope.original_length / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    width = high - low if high != low else 0.001
    slow = ((torch.arange(rope.dim // 2, dtype=torch.float64, device="cpu") - low) / width).clamp(0, 1)
    return (1 - slow) * freq + slow * freq / rope.factor


def longrope_frequencies(rope: RopeConfig, length: int) -> Tensor:
    """LongRoPE (arXiv 2402.13753): a divisor for each frequency, from one list up to the trained length, from another beyond.
    float64 [dim/2]."""
    divisors = rope.long_factor if length > rope.original_length else rope.short_factor
    return default_frequencies(rope.theta, rope.dim) / torch.tensor(divisors, dtype=torch.float64, device="cpu")


def yarn_attention_factor(factor: float, mscale: float = 1.0) -> float:
    """YaRN's factor of cos and sin: 0.1 · mscale · ln(factor) + 1 (section 3.4 of the paper; mscale: DeepSeek), at least 1."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def longrope_attention_factor(factor: float, original_length: int) -> float:
    """LongRoPE's factor of cos and sin: sqrt(1 + ln(factor) / ln(original_length)) (Phi-3 technical report), at least 1."""
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original_length))


FREQUENCIES = {
    "default": lambda rope, length: default_frequencies(rope.theta, rope.dim),
    "linear": linear_frequencies,
    "dynamic": dynamic_frequencies,
    "llama3": llama3_frequencies,
    "yarn": yarn_frequencies,
    "longrope": longrope_frequencies,
}


def frequencies(rope: RopeConfig, length: int) -> Tensor:
    """Radians per position of each rotated pair, float64 [dim/2]; `length` matters to length-dependent types only."""
    return FREQUENCIES[rope.rope_type](rope, length)


class Rotary(nn.Module):
    """cos and sin of the angles of every position; a module without weights, so that a hook can read its output."""

    def __init__(self, rope: RopeConfig) -> None:
        super().__init__()
        self.rope = rope

    def forward(self, positions: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
        """positions int64 [B, T] on the CPU, one sequence length per row → cos, sin float64 [B, 1, T, dim/2]."""
        if self.rope.depends_on_length:
            freq = torch.stack([frequencies(self.rope, length) for length in lengths])[:, None]
        else:
            freq = frequencies(self.rope, 0)
        angles = (positions[..., None].double() * freq)[:, None]  # [B, 1, T, dim/2]
        return angles.cos() * self.rope.attention_factor, angles.sin() * self.rope.attention_factor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (j, j + dim/2) of x [B, H, T, D] by its angle; cos, sin [B, 1, T, dim/2] → [B, H, T, D] in the dtype
    of x. Dimensions beyond `dim` stay as they are."""
    dim = 2 * cos.shape[-1]
    a, b = x[..., :dim].to(cos.dtype).chunk(2, -1)
    turned_a, turned_b = torch.addcmul(a * cos, b, -sin), torch.addcmul(b * cos, a, sin)
    return torch.cat((turned_a.to(x.dtype), turned_b.to(x.dtype), x[..., dim:]), -1)
