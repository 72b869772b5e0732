"""ggml's blocks of 32, written again: bytes that are easy to read, then halves where only one rounding equals ggml's."""

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from nanollama.quant.formats.table import find_format
from nanollama.quant.formats.uniform import around_zero, decode_q4_0, decode_q8_0, encode_q8_0, nibbles

DIGITS = [16 * (15 - low) + low for low in range(16)]  # 0xF0, 0xE1 … 0x0F: low digits count up, high ones down
UP_AND_DOWN = [*range(16), *range(15, -1, -1)]


def octets(*rows: list[int]) -> Tensor:
    """uint8 [N, bytes]."""
    return torch.tensor(rows, dtype=torch.uint8)


def block(*values: float) -> Tensor:
    """One block of 32: these values, then zeros."""
    return torch.tensor([[*values] + [0.0] * (32 - len(values))])


def codes(values: Tensor, half: int) -> tuple[Tensor, list[int]]:
    """around_zero of one block: its d, and its codes as a list."""
    d, q = around_zero(values, half)
    return d, [int(code) for code in q[0]]


def q8_0(values: Tensor, *qs: list[int], d: Tensor) -> None:
    """encode_q8_0 must give these scales and, for the first values of each block, these codes."""
    given = values.clone()
    fields = encode_q8_0(given)
    agree("the fields of encode_q8_0", sorted(fields), ["d", "qs"])
    agree("d of encode_q8_0", fields["d"], d)
    agree("qs of encode_q8_0", fields["qs"][:, : len(qs[0])].double(), torch.tensor(qs).double())
    agree("the values, after encode_q8_0", given, values)


def test_low_and_high_halves_of_a_byte_are_16_values_apart() -> None:
    """0xF0, 0xE1 … 0x0F: first the low digits 0 … 15, then the high ones 15 … 0."""
    answers(nibbles, octets(DIGITS), want=torch.tensor([UP_AND_DOWN], dtype=torch.int8))


def test_in_q4_0_code_8_is_zero() -> None:
    """A scale of 2: code 0 is -16, code 8 is 0, code 15 is 14."""
    want = torch.tensor([[2.0 * (code - 8) for code in UP_AND_DOWN]])
    answers(decode_q4_0, torch.tensor([[2.0]]), octets(DIGITS), want=want)


def test_every_block_has_its_own_scale() -> None:
    """Code 9, which is 1, in two blocks; a scale may be negative."""
    want = torch.tensor([[0.5] * 32, [-3.0] * 32])
    answers(decode_q4_0, torch.tensor([[0.5], [-3.0]]), octets([0x99] * 16, [0x99] * 16), want=want)


def test_q8_0_has_codes_with_a_sign() -> None:
    """A scale of 1/2; the codes run from -128 to 127."""
    qs = torch.tensor([[-128, -1, 0, 1, 127] + [2] * 27, [3] * 32], dtype=torch.int8)
    want = torch.tensor([[-64.0, -0.5, 0.0, 0.5, 63.5] + [1.0] * 27, [12.0] * 32])
    answers(decode_q8_0, torch.tensor([[0.5], [4.0]]), qs, want=want)


def test_a_block_of_q4_0_is_18_bytes() -> None:
    """d as float16, 1.0 being 0x3C00 with the low byte first; then 16 bytes."""
    want = torch.tensor([[float(code - 8) for code in UP_AND_DOWN]])
    agree("a block of Q4_0, decoded", find_format("Q4_0").decode(octets([0x00, 0x3C, *DIGITS])), want)


def test_the_outermost_value_of_q4_0_becomes_exactly_minus_8() -> None:
    """-8 has the largest magnitude: d is 1, and the codes are the values, eight higher."""
    d, q = codes(block(-8.0, 7.0, 1.0, -1.0), 8)
    agree("d of around_zero", d, torch.tensor([[1.0]]))
    agree("q of around_zero", q, [0, 15, 9, 7] + [8] * 28)


def test_a_positive_outermost_value_makes_d_negative() -> None:
    """16 is to be code 0, which is -8: so d is -2, and all signs are reversed."""
    d, q = codes(block(16.0, -14.0, 2.0), 8)
    agree("d of around_zero", d, torch.tensor([[-2.0]]))
    agree("q of around_zero", q, [0, 15, 7] + [8] * 29)


def test_of_two_outermost_values_the_first_counts() -> None:
    """8 before -8: d is -1, code 0 is 8, and -8 would need code 16: it is clamped to 15, which is -7."""
    d, q = codes(block(1.0, 8.0, -8.0), 8)
    agree("d of around_zero", d, torch.tensor([[-1.0]]))
    agree("q of around_zero", q, [7, 0, 15] + [8] * 29)


def test_codes_of_q4_0_are_rounded_halves_up() -> None:
    """Steps of 1: 0.25 is nearer to 0, 0.75 to 1; of 0.5 and -0.5 both go up, as one half is added before truncation."""
    agree("q of around_zero", codes(block(-8.0, 0.25, 0.75, 0.5, -0.5, -0.75), 8)[1], [0, 8, 9, 9, 8, 7] + [8] * 26)


def test_q5_0_has_twice_as_many_steps() -> None:
    """half is 16: -16 is code 0, 0 is 16, 15 is 31, and 16 is clamped to 31."""
    d, q = codes(block(-16.0, 15.0, 16.0, 1.0), 16)
    agree("d of around_zero", d, torch.tensor([[1.0]]))
    agree("q of around_zero", q, [0, 31, 31, 17] + [16] * 28)


def test_each_block_has_its_own_outermost_value() -> None:
    """Three blocks, one of zeros: its d is 0, and each of its codes is the middle one."""
    values = torch.cat([block(-8.0, 1.0), block(0.0), block(0.25, -2.0, 1.0)])
    d, q = around_zero(values, 8)
    agree("d of around_zero", d, torch.tensor([[1.0], [0.0], [0.25]]))
    agree("q of around_zero", q[:, :3].double(), torch.tensor([[0.0, 9.0, 8.0], [8.0, 8.0, 8.0], [9.0, 0.0, 12.0]]).double())


def test_q8_0_puts_the_outermost_value_on_127() -> None:
    """-254 becomes -127: d is 2."""
    q8_0(block(-254.0, 2.0, 5.0, 6.5), [-127, 1, 3, 3, 0], d=torch.tensor([[2.0]]))


def test_q8_0_rounds_halves_away_from_zero() -> None:
    """Like C's roundf: 2.5 is 3 and -2.5 is -3; torch.round would return 2 and -2."""
    q8_0(block(127.0, 2.5, -2.5, 0.5, 3.5), [127, 3, -3, 1, 4], d=torch.tensor([[1.0]]))


def test_codes_of_q8_0_are_made_with_the_scale_before_it_is_stored() -> None:
    """d is 2049, which float16 stores as 2048. 205904 is 100.49 times the first, code 100, and 100.54 times the second."""
    q8_0(block(127 * 2049.0, 205904.0), [127, 100], d=torch.tensor([[2049.0]]))


def test_q8_0_multiplies_by_the_reciprocal() -> None:
    """d is 61. 152.5 / 61 is 2.5, but 152.5 times float32's 1/61 is 2.4999998, and ggml stores 2."""
    q8_0(block(127 * 61.0, 152.5), [127, 2], d=torch.tensor([[61.0]]))


def test_a_block_of_zeros_has_the_scale_0() -> None:
    """And codes of 0, although there is no reciprocal; the next block is not affected."""
    q8_0(torch.cat([block(0.0), block(127.0)]), [0, 0], [127, 0], d=torch.tensor([[0.0], [1.0]]))


def test_decoded_weights_are_off_by_half_a_step_at_most() -> None:
    """Fifty random blocks through both formats. Q4_0 clamps one end of its range: there the error may be a whole step."""
    values = torch.randn(50, 32)
    outermost = values.abs().amax(1, keepdim=True)
    for name, step in (("Q8_0", outermost / 254), ("Q4_0", outermost / 8)):
        stored = find_format(name)
        wrong = (stored.decode(stored.encode(values)) - values).abs() > step + outermost / 1000
        agree(f"how many values are off by more, in {name}", int(wrong.sum()), 0)
