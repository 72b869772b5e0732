"""Q4_K, written again: twelve bytes bit by bit, then a whole super-block, then random ones."""

import random

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree
from nanollama.quant.formats.superblock import decode_q4_k, six_bit_pairs
from nanollama.quant.formats.table import find_format


def octets(*rows: list[int]) -> Tensor:
    """uint8 [N, bytes]."""
    return torch.tensor(rows, dtype=torch.uint8)


def pairs(row: list[int], scales: list[int], mins: list[int]) -> None:
    """six_bit_pairs must return these numbers, of any dtype, for one super-block's twelve bytes."""
    got = six_bit_pairs(octets(row))
    agree("how many tensors six_bit_pairs returns", len(got), 2)
    for name, have, want in zip(("scales", "mins"), got, (scales, mins), strict=True):
        agree(f"the {name} of six_bit_pairs", have.double(), torch.tensor([want]).double(), inputs={"scales": row})


def decodes(d: list[float], dmin: list[float], scales: Tensor, qs: Tensor, want: Tensor) -> None:
    """decode_q4_k must return these values [N, 256], in any shape."""
    got = decode_q4_k(torch.tensor(d)[:, None], torch.tensor(dmin)[:, None], scales, qs)
    agree("decode_q4_k", got.reshape(len(d), -1), want)


def low_digits(*numbers: int) -> list[int]:
    """Twelve bytes with these four scales, then these four mins; the other four of each are 0."""
    return [*numbers, 0, 0, 0, 0]


def test_the_first_four_scales_have_a_byte_each() -> None:
    """Bytes 0 … 3 are scales, bytes 4 … 7 mins; six bits reach to 63."""
    pairs(low_digits(1, 2, 3, 63, 5, 6, 7, 0), [1, 2, 3, 63, 0, 0, 0, 0], [5, 6, 7, 0, 0, 0, 0, 0])


def test_the_last_four_share_bytes() -> None:
    """In byte 8 + i the low digit belongs to scale 4 + i, the high one to min 4 + i: 0x51 is 1 and 5."""
    pairs([0] * 8 + [0x51, 0x62, 0x73, 0x84], [0, 0, 0, 0, 1, 2, 3, 4], [0, 0, 0, 0, 5, 6, 7, 8])


def test_their_high_bits_are_what_the_first_bytes_have_left() -> None:
    """Byte 0 is 0b11_000000: scale 0 is 0, and scale 4 gets 3 · 16. Byte 5 is 0b01_000010: min 1 is 2, min 5 gets 16."""
    pairs([0b11_000000] + [0] * 4 + [0b01_000010] + [0] * 6, [0, 0, 0, 0, 48, 0, 0, 0], [0, 2, 0, 0, 0, 16, 0, 0])


def test_all_twenty_four_digits_together() -> None:
    """All bits are used: 0xC1 is 1 for scale 0, and 3 · 16 plus scale 4's low digit 5."""
    row = [0xC1, 0x82, 0x43, 0x04, 0x0A, 0x4B, 0x8C, 0xCD, 0xF5, 0xE6, 0xD7, 0xC8]
    pairs(row, [1, 2, 3, 4, 53, 38, 23, 8], [10, 11, 12, 13, 15, 30, 45, 60])


def test_a_code_is_multiplied_by_both_scales() -> None:
    """d is 1/2 and the first sub-block's scale 6: code 1 is 3. The second's scale is 10, so there it is 5."""
    qs = octets([0x11] * 32 + [0] * 96)
    want = torch.tensor([[3.0] * 32 + [5.0] * 32 + [0.0] * 192])
    decodes([0.5], [0.0], octets(low_digits(6, 10, 0, 0, 0, 0, 0, 0)), qs, want)


def test_a_minimum_is_taken_away() -> None:
    """dmin is 1/4, the first sub-block's min 8: all its values are 2 lower; d does not affect it."""
    want = torch.tensor([[-2.0] * 32 + [0.0] * 32 + [-1.0] * 32 + [0.0] * 160])
    decodes([7.0], [0.25], octets(low_digits(0, 0, 0, 0, 8, 0, 4, 0)), octets([0] * 128), want)


def test_32_bytes_are_two_sub_blocks() -> None:
    """Low digits first, all 32 of them, then the high ones: bytes 0x21 are a sub-block of 1 and one of 2."""
    qs = octets([0x21] * 32 + [0x43] * 32 + [0] * 64)
    want = torch.tensor([[1.0] * 32 + [2.0] * 32 + [3.0] * 32 + [4.0] * 32 + [0.0] * 128])
    decodes([1.0], [0.0], octets(low_digits(1, 1, 1, 1, 0, 0, 0, 0)), qs, want)


def test_each_super_block_is_alone() -> None:
    """Two of them, with other scales of the scales: code 1, scale 1, min 1."""
    scales, qs = octets(low_digits(1, 0, 0, 0, 1, 0, 0, 0)), octets([0x01] * 32 + [0] * 96)
    want = torch.tensor([[2.0 - 0.5] * 32 + [0.0] * 224, [4.0 - 8.0] * 32 + [0.0] * 224])
    decodes([2.0, 4.0], [0.5, 8.0], scales.repeat(2, 1), qs.repeat(2, 1), want)


def test_a_super_block_of_256_values_is_144_bytes() -> None:
    """d and dmin as float16 (1.0 and 2.0), twelve bytes, 128 bytes."""
    row = [0x00, 0x3C, 0x00, 0x40, *low_digits(5, 0, 0, 0, 3, 0, 0, 0), *([0x01] * 32 + [0] * 96)]
    got = find_format("Q4_K").decode(octets(row))
    agree("a super-block, decoded", got, torch.tensor([[5.0 - 6.0] * 32 + [0.0] * 224]))


def six_bits(row: list[int], j: int) -> tuple[int, int]:
    """Scale and min of sub-block j, in plain numbers."""
    if j < 4:
        return row[j] % 64, row[j + 4] % 64
    shared = row[j + 4]
    return shared % 16 + row[j - 4] // 64 * 16, shared // 16 + row[j] // 64 * 16


def test_random_super_blocks_come_apart_as_numbers_do() -> None:
    """Twenty of them, each value worked out alone: (d · scale) · code - dmin · min."""
    draw = random.Random(0)
    for _ in range(20):
        scales, qs = ([draw.randrange(256) for _ in range(count)] for count in (12, 128))
        d, dmin = draw.randrange(1, 9) / 8, draw.randrange(1, 9) / 4
        values = []
        for at in range(256):
            scale, minimum = six_bits(scales, at // 32)
            byte = qs[at // 64 * 32 + at % 32]
            values.append(d * scale * (byte // 16 if at // 32 % 2 else byte % 16) - dmin * minimum)
        decodes([d], [dmin], octets(scales), octets(qs), torch.tensor([values]))
