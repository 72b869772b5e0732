"""Which tensor gets how many bits, written again: 32 layers on paper, then one rule after the other."""

from collections.abc import Sequence

from conformance.katas.testing.compare import agree, answers
from nanollama.quant.mixes import Traits, fitting, has_more_bits, is_quantized, wanted_for_ffn_down, wanted_for_values

EVERY_THIRD = [6, 9, 12, 15, 18, 21, 24, 27]  # of 32 layers, between the first four and the last four


def model(architecture: str = "qwen2", layers: int = 32, experts: int = 0, is_70b: bool = False) -> Traits:
    """A model with one attention in each layer."""
    return Traits(architecture, layers, experts, is_70b, is_tied=False, values=layers)


def with_more_bits(layers: int) -> list[int]:
    """The layers for which has_more_bits is true."""
    return [layer for layer in range(layers) if has_more_bits(layer, layers)]


def of_values(file_type: str, traits: Traits) -> dict[str, list[int]]:
    """The layers by the format of their values."""
    found: dict[str, list[int]] = {}
    for layer in range(traits.layers):
        found.setdefault(wanted_for_values(layer, file_type, traits), []).append(layer)
    return found


def of_ffn_down(file_type: str, traits: Traits) -> dict[str, list[int]]:
    """The layers by the format of their ffn_down."""
    found: dict[str, list[int]] = {}
    for layer in range(traits.layers):
        found.setdefault(wanted_for_ffn_down(layer, file_type, traits), []).append(layer)
    return found


def but(*layers: Sequence[int]) -> list[int]:
    """Those of 32 layers that are in none of these."""
    return [layer for layer in range(32) if not any(layer in some for some in layers)]


def test_the_first_and_last_eighth_and_every_third_between_get_more_bits() -> None:
    """32 layers: 0 … 3 and 28 … 31; from 4 on the third, the sixth and so on are 6, 9 … 27."""
    agree("layers with more bits, of 32", with_more_bits(32), [0, 1, 2, 3, *EVERY_THIRD, 28, 29, 30, 31])


def test_a_model_of_80_layers() -> None:
    """The first and last ten, and of those between the third, the sixth and so on: 12, 15 … 69."""
    want = [*range(10), *range(12, 70, 3), *range(70, 80)]
    agree("layers with more bits, of 80", with_more_bits(80), want)


def test_an_eighth_is_rounded_down() -> None:
    """Of 5 layers the first eighth is none, and the last begins at 35 / 8, layer 4; every third is layer 2."""
    agree("layers with more bits, of 5", with_more_bits(5), [2, 4])
    agree("layers with more bits, of 20", with_more_bits(20), [0, 1, 4, 7, 10, 13, 16, 17, 18, 19])
    agree("layers with more bits, of 1", with_more_bits(1), [0])


def test_matrices_of_weights_are_quantized_and_nothing_else() -> None:
    """Two dimensions or more with more than one row. Biases and norms are vectors; a single row is one too."""
    matrices: list[tuple[int, ...]] = [(8, 8), (2, 8), (4, 1, 8), (1, 4, 8)]
    vectors: list[tuple[int, ...]] = [(8,), (1, 8), (1, 1, 8)]
    for shape in matrices + vectors:
        answers(is_quantized, "blk.0.ffn_up.weight", shape, want=shape in matrices)
    answers(is_quantized, "blk.0.attn_q.bias", (8, 8), want=False)


def test_delicate_tensors_stay_as_they_are() -> None:
    """A router chooses experts, positions and norms affect everything: little to save, much to lose."""
    for name in ("blk.0.ffn_gate_inp.weight", "blk.0.attn_norm.weight", "position_embd.weight", "token_types.weight"):
        answers(is_quantized, name, (8, 8), want=False)


def test_values_get_six_bits_in_the_medium_mixes() -> None:
    """attn_v is small and affects all of attention's output: q4_k_m and q5_k_m use Q6_K for it in some layers."""
    more = [0, 1, 2, 3, *EVERY_THIRD, 28, 29, 30, 31]
    agree("formats of values in q4_k_m", of_values("q4_k_m", model()), {"Q6_K": more, "Q4_K": but(more)})
    agree("formats of values in q5_k_m", of_values("q5_k_m", model()), {"Q6_K": more, "Q5_K": but(more)})


def test_values_of_the_small_mix_get_five_bits_in_four_layers() -> None:
    """q4_k_s: the first four. Mixes of a single format use it everywhere."""
    agree("formats of values in q4_k_s", of_values("q4_k_s", model()), {"Q5_K": [0, 1, 2, 3], "Q4_K": but([0, 1, 2, 3])})
    agree("formats of values in q5_k_s", of_values("q5_k_s", model()), {"Q5_K": but()})
    agree("formats of values in q6_k", of_values("q6_k", model()), {"Q6_K": but()})


def test_values_of_large_models() -> None:
    """With eight experts, attention is a small part and gets Q8_0. In a 70B eight heads share values: Q5_K, not Q4_K."""
    agree("formats of values with 8 experts", of_values("q4_k_m", model(experts=8)), {"Q8_0": but()})
    more = [0, 1, 2, 3, *EVERY_THIRD, 28, 29, 30, 31]
    agree("formats of values of a 70B", of_values("q4_k_m", model(is_70b=True)), {"Q6_K": more, "Q5_K": but(more)})
    agree("formats of values of a 70B in q5_k_s", of_values("q5_k_s", model(is_70b=True)), {"Q5_K": but()})


def test_values_are_counted_among_values() -> None:
    """Where only 8 of 32 layers have attention, the last eighth of the values is number 7."""
    few = model()._replace(values=8)
    got = [wanted_for_values(number, "q4_k_m", few) for number in range(8)]
    agree("formats of 8 values", got, ["Q6_K", "Q4_K", "Q4_K", "Q6_K", "Q4_K", "Q4_K", "Q6_K", "Q6_K"])


def test_ffn_down_gets_six_bits_in_the_medium_mixes() -> None:
    """The same layers as values do."""
    more = [0, 1, 2, 3, *EVERY_THIRD, 28, 29, 30, 31]
    agree("formats of ffn_down in q4_k_m", of_ffn_down("q4_k_m", model()), {"Q6_K": more, "Q4_K": but(more)})
    agree("formats of ffn_down in q5_k_m", of_ffn_down("q5_k_m", model()), {"Q6_K": more, "Q5_K": but(more)})


def test_ffn_down_of_the_small_mix() -> None:
    """q4_k_s: Q5_K for the first eighth, which of 32 layers is four, of 16 two."""
    first = [0, 1, 2, 3]
    agree("formats of ffn_down in q4_k_s", of_ffn_down("q4_k_s", model()), {"Q5_K": first, "Q4_K": but(first)})
    got = of_ffn_down("q4_k_s", model(layers=16))
    agree("formats of ffn_down in q4_k_s, of 16 layers", got, {"Q5_K": [0, 1], "Q4_K": list(range(2, 16))})
    agree("formats of ffn_down in q4_k_s, of 7 layers", of_ffn_down("q4_k_s", model(layers=7)), {"Q4_K": list(range(7))})
    agree("formats of ffn_down in q6_k", of_ffn_down("q6_k", model()), {"Q6_K": but()})


def test_falcon_has_a_separate_rule() -> None:
    """q4_k_m: Q6_K for a sixteenth, Q5_K where others have Q6_K. In q4_k_s no layer gets more; q5_k_m is unchanged."""
    falcon, five = model("falcon"), [2, 3, *EVERY_THIRD, 28, 29, 30, 31]
    agree("Falcon's q4_k_m", of_ffn_down("q4_k_m", falcon), {"Q6_K": [0, 1], "Q5_K": five, "Q4_K": but([0, 1], five)})
    agree("Falcon's q4_k_s", of_ffn_down("q4_k_s", falcon), {"Q4_K": but()})
    agree("Falcon's q4_k_m, layer 0 of 15", wanted_for_ffn_down(0, "q4_k_m", model("falcon", layers=15)), "Q5_K")
    more = [0, 1, 2, 3, *EVERY_THIRD, 28, 29, 30, 31]
    agree("Falcon's q5_k_m", of_ffn_down("q5_k_m", falcon), {"Q6_K": more, "Q5_K": but(more)})


def test_rows_are_whole_blocks() -> None:
    """512 is two blocks of 256. 288 is nine of 32, so a K format is replaced by one of about as many bits; 100 is neither."""
    for name, columns, want in (
        *(("Q4_K", 512, "Q4_K"), ("Q4_K", 288, "Q5_0"), ("Q5_K", 288, "Q5_1"), ("Q6_K", 288, "Q8_0"), ("Q4_K", 100, "F16")),
        *(("Q8_0", 64, "Q8_0"), ("Q8_0", 100, "F16"), ("F32", 7, "F32")),
    ):
        agree(f"the format for rows of {columns}, if {name} is wanted", fitting(name, columns).name, want)
