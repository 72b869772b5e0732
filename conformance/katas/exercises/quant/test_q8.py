"""Int8 with one scale a row, written again: rows with known codes, then the largest rounding error."""

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from nanollama.quant.formats.rowwise import decode_q8, encode_q8, rowwise_format


def codes(*rows: list[int]) -> Tensor:
    """Codes as they are stored, int8 [N, columns]."""
    return torch.tensor(rows, dtype=torch.int8)


def encodes(values: Tensor, *, scale: Tensor, q: Tensor) -> None:
    """encode_q8 must give this scale, float32 [N, 1], and these codes, of any dtype, and leave the weights as they are."""
    given = values.clone()
    fields = encode_q8(given)
    agree("the fields of encode_q8", sorted(fields), ["q", "scale"])
    agree("scale of encode_q8", fields["scale"], scale, inputs={"values": values})
    agree("q of encode_q8", fields["q"].double(), q.double(), inputs={"values": values})
    agree("the weights, after encode_q8", given, values)


def back(values: Tensor) -> Tensor:
    """Weights encoded to int8 and decoded."""
    fields = encode_q8(values)
    return decode_q8(fields["scale"], fields["q"].to(torch.int8))


def test_a_weight_is_its_code_times_the_scale() -> None:
    """A step of 1/2: the codes 127, -3, 0 are 63.5, -1.5 and 0."""
    answers(decode_q8, torch.tensor([[0.5]]), codes([127, -3, 0]), want=torch.tensor([[63.5, -1.5, 0.0]]))


def test_the_largest_weight_gets_the_largest_code() -> None:
    """254 becomes 127, so a step is 2: -64 is 32 steps down, 6 three steps up."""
    encodes(torch.tensor([[254.0, -64.0, 6.0, 0.0]]), scale=torch.tensor([[2.0]]), q=codes([127, -32, 3, 0]))


def test_codes_are_rounded_to_the_nearest() -> None:
    """Steps of 1, weights between them: 2.75 is nearer to 3, -2.75 to -3, and 2.25 to 2."""
    encodes(torch.tensor([[127.0, 2.75, -2.75, 2.25]]), scale=torch.tensor([[1.0]]), q=codes([127, 3, -3, 2]))


def test_the_largest_may_be_negative() -> None:
    """A magnitude of 254 on the negative side; the scale is still positive, and the code is -127."""
    encodes(torch.tensor([[-254.0, 4.0]]), scale=torch.tensor([[2.0]]), q=codes([-127, 2]))


def test_each_row_has_its_own_scale() -> None:
    """The second row is a hundredth of the first: with the first one's step it would be 0 and 1."""
    rows = torch.tensor([[127.0, 50.0, -1.0], [1.27, 0.5, -0.01]])
    encodes(rows, scale=torch.tensor([[1.0], [0.01]]), q=codes([127, 50, -1], [127, 50, -1]))


def test_each_row_is_decoded_with_its_own_scale() -> None:
    """The same codes, at steps of 1 and of 4."""
    want = torch.tensor([[1.0, -2.0, 3.0], [4.0, -8.0, 12.0]])
    answers(decode_q8, torch.tensor([[1.0], [4.0]]), codes([1, -2, 3], [1, -2, 3]), want=want)


def test_a_row_of_zeros_stays_zero() -> None:
    """Its scale is 0, and 0 / 0 is no code; the next row is not affected."""
    encodes(torch.tensor([[0.0, 0.0], [127.0, 1.0]]), scale=torch.tensor([[0.0], [1.0]]), q=codes([0, 0], [127, 1]))
    agree("a row of zeros, there and back", back(torch.zeros(1, 3)), torch.zeros(1, 3))


def test_a_row_takes_four_bytes_and_one_for_each_weight() -> None:
    """The scale 2.0 in front, a float32 whose last byte is 64; then 127, and -1 as the byte 255."""
    blocks = rowwise_format("q8", 2).encode(torch.tensor([[254.0, -2.0]]))
    agree("the bytes of a row", blocks, torch.tensor([[0, 0, 0, 64, 127, 255]], dtype=torch.uint8))


def test_rounding_costs_half_a_step_at_most() -> None:
    """Fifty random rows of 40: no weight is off by more than largest / 254, the largest by almost nothing."""
    values = torch.randn(50, 40)
    half_a_step = values.double().abs().amax(1, keepdim=True) / 254
    wrong = (back(values).double() - values.double()).abs() > half_a_step * (1 + 1e-4)
    agree("how many weights are off by more than half a step", int(wrong.sum()), 0)
    largest = values.abs().argmax(1, keepdim=True)
    agree("the largest of each row, there and back", back(values).gather(1, largest), values.gather(1, largest))


def test_encoding_decoded_weights_changes_nothing() -> None:
    """Decoded weights are already on the steps: encoding them again changes nothing."""
    once = back(torch.randn(20, 30))
    agree("weights after two trips, as after one", back(once), once)
