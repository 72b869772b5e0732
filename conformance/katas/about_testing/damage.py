"""The damage done to the checkpoint of find_the_layer. Reading on before `verify` has found it spoils the exercise."""

from collections.abc import Mapping

from torch import Tensor

from conformance.models.fixtures import fixture_config, fixture_tensors

ARCHITECTURE = "LlamaForCausalLM"
PLACE = "model.layers.1.self_attn.k_proj.weight"
HEAD_DIM = 8


def right_tensors() -> dict[str, Tensor]:
    """The checkpoint before it was converted: float64."""
    return dict(fixture_tensors(fixture_config(ARCHITECTURE)))


def damaged(tensors: Mapping[str, Tensor], head_dim: int = HEAD_DIM) -> dict[str, Tensor]:
    """The key rows of one layer in Meta's order: rows j and j + D/2 of each head next to each other."""
    rows = tensors[PLACE].unflatten(0, (-1, 2, head_dim // 2))
    return {**tensors, PLACE: rows.transpose(1, 2).flatten(0, 2).contiguous()}
