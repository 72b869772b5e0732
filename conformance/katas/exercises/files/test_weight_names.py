"""Tensor names and shapes of checkpoints, written again: renamed tensors and fused ones."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from conformance.katas.testing.compare import agree, answers
from nanollama.checkpoint.names import rename, split
from nanollama.errors import NanollamaError
from nanollama.model.families import FAMILIES, Family

GPT2, LLAMA, PHI3, MIXTRAL = (
    FAMILIES[f"{name}"] for name in ("GPT2LMHeadModel", "LlamaForCausalLM", "Phi3ForCausalLM", "MixtralForCausalLM")
)


def ours(family: Family, name: str) -> str:
    """A stored name, renamed."""
    return rename(family, name)


def rules(*renames: tuple[str, str]) -> Any:
    """A family with these rules and nothing else."""
    return SimpleNamespace(renames=renames)


def config(family: Family, heads: int = 2, kv_heads: int = 1, head_dim: int = 2, width: int = 3) -> Any:
    """The sizes that determine how a fused tensor is split."""
    sizes = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim}
    return SimpleNamespace(family=family, intermediate_size=width, **sizes)


def rows(count: int, columns: int = 1) -> Tensor:
    """[count, columns]; row r is filled with r."""
    return torch.arange(count).double()[:, None].expand(count, columns).clone()


def cut(family: Family, name: str, tensor: Tensor, **sizes: int) -> list[tuple[str, Tensor]]:
    """The parts: name and tensor of each."""
    return split(config(family, **sizes), name, tensor)


def test_a_rule_takes_the_beginning_away() -> None:
    """Llama has one rule: "model." at the beginning is removed; lm_head.weight has none and stays."""
    answers(ours, LLAMA, "model.layers.0.mlp.up_proj.weight", want="layers.0.mlp.up_proj.weight")
    answers(ours, LLAMA, "lm_head.weight", want="lm_head.weight")


def test_a_rule_without_a_dot_is_for_the_beginning_alone() -> None:
    """ "h." becomes "layers." in front; the "h." in "graph.h.w" stays, and so does a second one in front."""
    agree("rename", rename(rules(("h.", "layers.")), "h.0.w"), "layers.0.w")
    agree("rename", rename(rules(("h.", "layers.")), "graph.h.w"), "graph.h.w")
    agree("rename", rename(rules(("h.", "layers.")), "h.h.w"), "layers.h.w")


def test_a_rule_with_a_dot_is_for_any_place() -> None:
    """ ".w1." in the middle becomes ".gate_proj."."""
    agree("rename", rename(rules((".w1.", ".gate_proj.")), "layers.0.w1.weight"), "layers.0.gate_proj.weight")


def test_rules_apply_one_after_the_other() -> None:
    """ "a." becomes "b.", and the next rule makes it "c."; in the opposite order "b." stays."""
    agree("rename", rename(rules(("a.", "b."), ("b.", "c.")), "a.w"), "c.w")
    agree("rename", rename(rules(("b.", "c."), ("a.", "b.")), "a.w"), "b.w")


def test_the_special_rule_stands_before_the_general_one() -> None:
    """GPT-2: .attn.c_proj. is o_proj, and every other .attn. is .self_attn."""
    answers(ours, GPT2, "transformer.h.3.attn.c_proj.weight", want="layers.3.self_attn.o_proj.weight")
    answers(ours, GPT2, "transformer.h.3.attn.c_attn.bias", want="layers.3.self_attn.c_attn.bias")
    answers(ours, GPT2, "transformer.h.3.mlp.c_proj.weight", want="layers.3.mlp.down_proj.weight")


def test_old_files_lack_the_prefix() -> None:
    """GPT-2's first checkpoints have "h.0" and "wte" without "transformer."."""
    answers(ours, GPT2, "h.0.ln_1.weight", want="layers.0.input_layernorm.weight")
    answers(ours, GPT2, "wte.weight", want="embed_tokens.weight")


def test_mixtrals_experts_have_three_matrices() -> None:
    """w1 is the gate, w3 up, w2 down."""
    for stored, own in (("w1", "gate_proj"), ("w3", "up_proj"), ("w2", "down_proj")):
        name = f"model.layers.0.block_sparse_moe.experts.7.{stored}.weight"
        answers(ours, MIXTRAL, name, want=f"layers.0.mlp.experts.7.{own}.weight")


def test_other_tensors_stay_whole() -> None:
    """One name, with the tensor unchanged."""
    name = "layers.0.mlp.down_proj.weight"
    agree("the parts", cut(PHI3, name, rows(3)), [(name, rows(3))])
    agree("the parts of Llama's", cut(LLAMA, name, rows(3)), [(name, rows(3))])


def test_q_k_and_v_lie_below_each_other() -> None:
    """2 heads and 1 key/value head of 2: rows 0 1 2 3 are q, 4 5 are k, 6 7 are v."""
    parts = cut(PHI3, "layers.0.self_attn.qkv_proj.weight", rows(8, 5))
    want = {"q_proj": rows(8, 5)[:4], "k_proj": rows(8, 5)[4:6], "v_proj": rows(8, 5)[6:]}
    agree("the parts", parts, [(f"layers.0.self_attn.{part}.weight", tensor) for part, tensor in want.items()])


def test_gate_and_up_lie_below_each_other() -> None:
    """A width of 3: rows 0 1 2 are the gate, 3 4 5 are up; they don't alternate."""
    parts = cut(PHI3, "layers.1.mlp.gate_up_proj.weight", rows(6, 4))
    want = [("layers.1.mlp.gate_proj.weight", rows(6, 4)[:3]), ("layers.1.mlp.up_proj.weight", rows(6, 4)[3:])]
    agree("the parts", parts, want)


def test_gpt2_stores_its_matrices_on_their_side() -> None:
    """[in, out] is transposed to [out, in]: 2 x 3 becomes 3 x 2."""
    name, turned = "layers.0.mlp.up_proj.weight", torch.tensor([[1.0, 4], [2, 5], [3, 6]])
    agree("the parts", cut(GPT2, name, torch.tensor([[1.0, 2, 3], [4, 5, 6]])), [(name, turned)])


def test_a_square_matrix_is_transposed_too() -> None:
    """Its shape can't decide; the family does."""
    name = "layers.0.self_attn.o_proj.weight"
    agree("the parts", cut(GPT2, name, torch.tensor([[1.0, 2], [3, 4]])), [(name, torch.tensor([[1.0, 3], [2, 4]]))])
    agree(
        "the parts of Llama's", cut(LLAMA, name, torch.tensor([[1.0, 2], [3, 4]])), [(name, torch.tensor([[1.0, 2], [3, 4]]))]
    )


def test_embeddings_and_vectors_are_not_transposed() -> None:
    """An embedding has one row per token already; biases and norms are vectors."""
    for name, tensor in (
        ("embed_tokens.weight", rows(3, 2)),
        ("embed_positions.weight", rows(2, 2)),
        ("norm.bias", rows(3)[:, 0]),
    ):
        agree(f"the parts of {name}", cut(GPT2, name, tensor), [(name, tensor)])
    agree("the parts of a bias in a layer", cut(GPT2, "layers.0.ln.bias", rows(3)[:, 0]), [("layers.0.ln.bias", rows(3)[:, 0])])


def test_gpt2_is_transposed_before_the_split() -> None:
    """Two heads of 1: stored as [3, 6], transposed to [6, 3], then two rows each for q, k and v."""
    stored = torch.arange(18.0).view(3, 6)
    parts = cut(GPT2, "layers.0.self_attn.c_attn.weight", stored, heads=2, kv_heads=2, head_dim=1)
    columns = {"q_proj": stored[:, 0:2].T, "k_proj": stored[:, 2:4].T, "v_proj": stored[:, 4:6].T}
    agree("the parts", parts, [(f"layers.0.self_attn.{part}.weight", tensor) for part, tensor in columns.items()])


def test_a_fused_bias_is_cut_like_its_matrix() -> None:
    """Six numbers: two each."""
    parts = cut(GPT2, "layers.0.self_attn.c_attn.bias", torch.arange(6.0), heads=2, kv_heads=2, head_dim=1)
    want = {"q_proj": [0.0, 1], "k_proj": [2.0, 3], "v_proj": [4.0, 5]}
    agree("the parts", parts, [(f"layers.0.self_attn.{part}.bias", torch.tensor(tensor)) for part, tensor in want.items()])


def test_nothing_is_copied() -> None:
    """Parts are views: a checkpoint larger than the memory stays on disk until it is used."""
    stored = rows(8, 5)
    memory = stored.untyped_storage().data_ptr()
    parts = cut(PHI3, "layers.0.self_attn.qkv_proj.weight", stored)
    same = [part.untyped_storage().data_ptr() == memory for _, part in parts]
    agree("q, k and v lie in the memory of what was stored", same, [True, True, True])


def test_the_rows_must_be_as_many_as_the_config_says() -> None:
    """4 + 2 + 2 are 8: neither 7 nor 9, nor a single number."""
    for tensor in (rows(7), rows(9), torch.tensor(1.0)):
        try:
            got: object = [name for name, _ in cut(PHI3, "layers.0.self_attn.qkv_proj.weight", tensor)]
        except NanollamaError as error:
            got = "4 + 2 + 2 rows" in str(error)
        agree(f"an error for {list(tensor.shape)}, which says 4 + 2 + 2 rows", got, True)
