"""Two weights a byte, written again: levels to count, bytes to read, then the error of four bits."""

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from nanollama.quant.formats.rowwise import decode_q4, encode_q4, rowwise_format

LEVELS = [float(level) for level in range(16)]
COUNTING = [0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]  # the codes 0 1, 2 3, … 14 15, the first of two low


def octets(*rows: list[int]) -> Tensor:
    """uint8 [N, bytes]."""
    return torch.tensor(rows, dtype=torch.uint8)


def encodes(values: Tensor, *, scale: Tensor, minimum: Tensor, q: Tensor) -> None:
    """encode_q4 must give this scale, minimum and packed codes, and leave the weights as they are."""
    given = values.clone()
    fields = encode_q4(given)
    agree("the fields of encode_q4", sorted(fields), ["minimum", "q", "scale"])
    agree("minimum of encode_q4, as float16", fields["minimum"].half(), minimum.half())
    agree("scale of encode_q4, as float16", fields["scale"].half(), scale.half())
    agree("q of encode_q4", fields["q"], q)
    agree("the weights, after encode_q4", given, values)


def back(values: Tensor) -> Tensor:
    """Weights encoded to four bits and decoded, with scale and minimum as stored."""
    columns = values.shape[1]
    stored = rowwise_format("q4", columns)
    return stored.decode(stored.encode(values))


def test_a_weight_is_its_code_times_the_scale_and_the_minimum() -> None:
    """Codes 0, 1 … 15, twice; a step of 1/2 from -1 on: -1, -0.5, 0 …"""
    want = torch.tensor([[code / 2 - 1 for code in LEVELS + LEVELS]])
    answers(decode_q4, torch.tensor([[0.5]]), torch.tensor([[-1.0]]), octets(COUNTING + COUNTING), 32, want=want)


def test_the_padding_of_a_row_is_dropped() -> None:
    """A row of 5 weights still has 16 bytes; 27 of its codes are padding."""
    row = octets(COUNTING + COUNTING)
    answers(decode_q4, torch.tensor([[1.0]]), torch.tensor([[0.0]]), row, 5, want=torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]]))


def test_each_group_is_decoded_with_its_own_two_numbers() -> None:
    """Two rows of two groups; all codes are 1, so that each weight is scale + minimum."""
    scale, minimum = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    want = torch.tensor([[11.0] * 32 + [22.0] * 32, [33.0] * 32 + [44.0] * 32])
    answers(decode_q4, scale, minimum, octets([0x11] * 32, [0x11] * 32), 64, want=want)


def test_sixteen_levels_are_fifteen_steps() -> None:
    """From 0 to 15: a step is 1, and every weight its own code. The first of two neighbours is in the low half."""
    values = torch.tensor([LEVELS + LEVELS])
    encodes(values, scale=torch.tensor([[1.0]]), minimum=torch.tensor([[0.0]]), q=octets(COUNTING + COUNTING))


def test_levels_begin_at_the_minimum() -> None:
    """From -8 to 22 in steps of 2: the same codes."""
    values = torch.tensor([[2 * level - 8 for level in LEVELS + LEVELS]])
    encodes(values, scale=torch.tensor([[2.0]]), minimum=torch.tensor([[-8.0]]), q=octets(COUNTING + COUNTING))


def test_codes_are_rounded_to_the_nearest_level() -> None:
    """Steps of 1 from 0: 0.75 is nearer to 1, 2.25 to 2."""
    values = torch.tensor([[0.75, 2.25] * 15 + [0.0, 15.0]])
    encodes(values, scale=torch.tensor([[1.0]]), minimum=torch.tensor([[0.0]]), q=octets([0x21] * 15 + [0xF0]))


def test_each_32_weights_have_separate_levels() -> None:
    """Small weights next to large ones: on the second group's levels all of the first would be code 0."""
    values = torch.tensor([[level / 8 for level in LEVELS + LEVELS] + [level * 8 for level in LEVELS + LEVELS]])
    scale, minimum = torch.tensor([[0.125, 8.0]]), torch.tensor([[0.0, 0.0]])
    encodes(values, scale=scale, minimum=minimum, q=octets(COUNTING * 4))


def test_rows_share_nothing() -> None:
    """The second row is the first, ten higher."""
    values = torch.tensor([LEVELS + LEVELS, [level + 10 for level in LEVELS + LEVELS]])
    scale, minimum = torch.tensor([[1.0], [1.0]]), torch.tensor([[0.0], [10.0]])
    encodes(values, scale=scale, minimum=minimum, q=octets(COUNTING * 2, COUNTING * 2))


def test_a_short_row_is_filled_up_with_its_last_weight() -> None:
    """Weights 2 and 17 alone: padded with 17, the levels run from 2 to 17. Zeros would make them 0 to 17."""
    encodes(
        torch.tensor([[2.0, 17.0]]), scale=torch.tensor([[1.0]]), minimum=torch.tensor([[2.0]]), q=octets([0xF0] + [0xFF] * 15)
    )


def test_a_row_of_33_has_two_groups() -> None:
    """The last weight, 7, is alone in its group: it is the minimum, and it and its padding are code 0."""
    values = torch.tensor([[*LEVELS, *LEVELS, 7.0]])
    scale, minimum = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 7.0]])
    encodes(values, scale=scale, minimum=minimum, q=octets(COUNTING * 2 + [0] * 16))


def test_equal_weights_are_all_the_minimum() -> None:
    """A step of 0: every code is 0, though float16's 0.1 is a little less than 0.1."""
    minimum = torch.tensor([[0.1]])
    encodes(torch.full((1, 32), 0.1), scale=torch.tensor([[0.0]]), minimum=minimum, q=octets([0] * 16))


def test_codes_are_those_of_the_numbers_as_stored() -> None:
    """float16 has no 2049, and stores 2048. From there 2050 is two steps of 1, not one: code 2."""
    values = torch.tensor([[2050.0] * 30 + [2049.0, 2064.0]])
    encodes(values, scale=torch.tensor([[1.0]]), minimum=torch.tensor([[2049.0]]), q=octets([0x22] * 15 + [0xF1]))


def test_no_code_is_below_0() -> None:
    """float16 has no 2051 either, and stores 2052: 2051 is a step below it, and is clamped to code 0."""
    values = torch.tensor([[2054.0] * 30 + [2051.0, 2066.0]])
    encodes(values, scale=torch.tensor([[1.0]]), minimum=torch.tensor([[2051.0]]), q=octets([0x22] * 15 + [0xE0]))


def test_32_weights_take_20_bytes() -> None:
    """Scale 1 and minimum 2 as float16, whose last bytes are 60 and 64; then 16 bytes of codes."""
    blocks = rowwise_format("q4", 32).encode(torch.tensor([[level + 2 for level in LEVELS + LEVELS]]))
    agree("the bytes of a row", blocks, octets([0, 60, 0, 64, *COUNTING, *COUNTING]))


def test_no_other_level_would_have_been_nearer() -> None:
    """Twenty random rows of 50: each weight comes back as the nearest of its group's 16 stored levels."""
    values = torch.randn(20, 50)
    fields, got = encode_q4(values), back(values)
    off = 0
    for row, weights in enumerate(values.tolist()):
        for column, weight in enumerate(weights):
            scale, minimum = (fields[name][row, column // 32].half().item() for name in ("scale", "minimum"))
            nearest = min(abs(minimum + scale * code - weight) for code in range(16))
            off += abs(got[row, column].item() - weight) > nearest + 1e-6
    agree("how many weights have a nearer level", off, 0)
