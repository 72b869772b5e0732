"""Numbers smaller than a byte, written again: hexadecimal digits are nibbles, so that bytes are easy to read."""

import random

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from nanollama.quant.formats.bits import pack, unpack


def octets(*rows: list[int]) -> Tensor:
    """uint8 [N, bytes]."""
    return torch.tensor(rows, dtype=torch.uint8)


def numbers(*rows: list[int]) -> Tensor:
    """The unpacked numbers: int8 [N, numbers]."""
    return torch.tensor(rows, dtype=torch.int8)


def test_a_byte_is_two_nibbles_the_low_one_first() -> None:
    """0x21 is 2 · 16 + 1: first 1, then 2."""
    answers(unpack, octets([0x21, 0x43]), 4, 1, want=numbers([1, 2, 3, 4]))


def test_bytes_of_a_run_give_their_low_bits_first() -> None:
    """Two bytes that belong together: 1 and 3, the low digits, then 2 and 4."""
    answers(unpack, octets([0x21, 0x43]), 4, 2, want=numbers([1, 3, 2, 4]))


def test_a_row_may_have_several_runs() -> None:
    """Four bytes in runs of two: one pair after the other."""
    answers(unpack, octets([0x21, 0x43, 0x65, 0x87]), 4, 2, want=numbers([1, 3, 2, 4, 5, 7, 6, 8]))


def test_a_byte_is_four_numbers_of_two_bits() -> None:
    """0b11100100, read from its end: 0, 1, 2, 3."""
    answers(unpack, octets([0b11100100]), 2, 1, want=numbers([0, 1, 2, 3]))


def test_a_byte_is_eight_single_bits() -> None:
    """0b10110001, read from its end; with run 2 a bit of each byte in turn."""
    answers(unpack, octets([0b10110001]), 1, 1, want=numbers([1, 0, 0, 0, 1, 1, 0, 1]))
    answers(unpack, octets([0b11, 0b10]), 1, 2, want=numbers([1, 0, 1, 1] + [0] * 12))


def test_numbers_are_never_negative() -> None:
    """0xFF is 15 and 15: the highest bit of a byte is not a sign."""
    answers(unpack, octets([0xFF, 0x80]), 4, 1, want=numbers([15, 15, 0, 8]))


def test_each_row_is_unpacked_alone() -> None:
    """Two rows of two bytes, which are one run each."""
    answers(unpack, octets([0x21, 0x43], [0x65, 0x87]), 4, 2, want=numbers([1, 3, 2, 4], [5, 7, 6, 8]))


def test_bytes_may_be_a_part_of_a_wider_row() -> None:
    """A slice of longer rows: its neighbours in memory don't belong to it."""
    answers(unpack, octets([0xAA, 0x21, 0x43], [0xBB, 0x65, 0x87])[:, 1:], 4, 1, want=numbers([1, 2, 3, 4], [5, 6, 7, 8]))


def test_packing_shifts_each_number_to_its_place() -> None:
    """1 and 2 are 0x21."""
    answers(pack, numbers([1, 2, 3, 4]), 4, 1, want=octets([0x21, 0x43]))
    answers(pack, numbers([0, 1, 2, 3]), 2, 1, want=octets([0b11100100]))


def test_packing_puts_numbers_a_run_apart_into_one_byte() -> None:
    """Runs of two: the first and the third number share a byte; a second run follows."""
    answers(pack, numbers([1, 3, 2, 4]), 4, 2, want=octets([0x21, 0x43]))
    answers(pack, numbers([1, 3, 2, 4, 5, 7, 6, 8]), 4, 2, want=octets([0x21, 0x43, 0x65, 0x87]))


def test_whole_numbers_of_any_dtype_are_packed() -> None:
    """Rounded codes are float32; 15 · 16 + 15 must still fit."""
    answers(pack, torch.tensor([[15.0, 15.0], [0.0, 8.0]]), 4, 1, want=octets([0xFF], [0x80]))


def test_random_bytes_come_apart_as_digits_do() -> None:
    """Every width, runs of 1, 4 and 16: number j of a run's byte i is what remains of byte / 2^(j · bits)."""
    draw = random.Random(0)
    for bits in (1, 2, 4):
        for run in (1, 4, 16):
            rows = [[draw.randrange(256) for _ in range(32)] for _ in range(3)]
            want = [
                [
                    row[start + i] // 2 ** (j * bits) % 2**bits
                    for start in range(0, 32, run)
                    for j in range(8 // bits)
                    for i in range(run)
                ]
                for row in rows
            ]
            answers(unpack, octets(*rows), bits, run, want=numbers(*want))
            agree(f"bytes packed with bits {bits}, run {run}", pack(numbers(*want), bits, run), octets(*rows))
