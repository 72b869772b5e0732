"""An exercise in finding a bug: a checkpoint was converted, and the copy computes something else.

    python -m conformance.katas.about_testing.find_the_layer FOLDER

writes FOLDER/right and FOLDER/wrong, and `nanollama verify FOLDER/right FOLDER/wrong` names the first module that differs.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from conformance.katas.about_testing import damage
from conformance.models.fixtures import fixture_config, write_fixture


def mend(tensors: Mapping[str, Tensor], head_dim: int) -> dict[str, Tensor]:
    """The corrected tensors of the wrong checkpoint, by the same names: a new dict; the given one is not changed.

    One tensor has its rows in another order, the same in each head of `head_dim` rows. `verify` names the tensor; compare some
    of its rows with the right ones to see the order, and read the first lines of nanollama/model/rope.py to understand it.
    """
    name = "model.layers.1.self_attn.k_proj.weight"
    neighbours = tensors[name].unflatten(0, (-1, head_dim // 2, 2))
    return {**tensors, name: neighbours.transpose(1, 2).flatten(0, 2)}


def main(folder: Path) -> None:
    """Write both checkpoints."""
    config = fixture_config(damage.ARCHITECTURE)
    for name, tensors in (("right", damage.right_tensors()), ("wrong", damage.damaged(damage.right_tensors()))):
        write_fixture(folder / name, config)
        save_file(tensors, folder / name / "model.safetensors", {"format": "pt"})
    print(f"now: nanollama verify {folder / 'right'} {folder / 'wrong'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
