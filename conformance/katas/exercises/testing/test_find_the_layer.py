"""A checkpoint is repaired: the right tensor and no other, by hand, and then the model's outputs are right."""

import torch
from torch import Tensor

from conformance.katas.about_testing.damage import ARCHITECTURE, HEAD_DIM, PLACE, damaged, right_tensors
from conformance.katas.about_testing.find_the_layer import mend
from conformance.katas.testing.compare import agree
from conformance.katas.testing.golden import AGREES, recipe, tap
from nanollama.model.config import read_config
from nanollama.model.transformer import Transformer


def rows(*numbers: float) -> dict[str, Tensor]:
    """A checkpoint whose every tensor has these rows."""
    return {name: torch.tensor(numbers)[:, None] for name in right_tensors()}


def test_one_tensor_is_changed() -> None:
    """All others were right."""
    wrong = damaged(right_tensors())
    mended = mend(wrong, HEAD_DIM)
    agree("how many tensors mend changes", sum(not torch.equal(mended[name], wrong[name]) for name in wrong), 1)


def test_it_is_the_tensor_that_was_wrong() -> None:
    """The first module that `verify` names."""
    mended = mend(damaged(right_tensors()), HEAD_DIM)
    changed = [name for name, tensor in right_tensors().items() if not torch.equal(mended[name], tensor)]
    agree("whether mend changes right tensors", any(name != PLACE for name in changed), False)


def test_one_head_by_number() -> None:
    """A head of eight rows in the order 0 4 1 5 2 6 3 7."""
    mended = mend(rows(0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0), 8)
    agree("the rows of one head", mended[PLACE].flatten(), torch.arange(8.0))


def test_each_head_is_for_itself() -> None:
    """Two heads of four rows."""
    mended = mend(rows(0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0), 4)
    agree("the rows of two heads", mended[PLACE].flatten(), torch.tensor([0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0]))


def test_the_dict_that_was_given_is_left_alone() -> None:
    """The caller may still need it."""
    given = rows(0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0)
    before = given[PLACE].clone()
    mend(given, 8)
    agree("the tensor that was given", given[PLACE], before)


def test_the_repaired_model_computes_what_transformers_computed() -> None:
    """Log-probabilities of the golden prompt, in float64."""
    model = Transformer(read_config(recipe(ARCHITECTURE)["config"])).double()
    mended = mend(damaged(right_tensors()), HEAD_DIM)
    model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in mended.items()})
    prompt = recipe(ARCHITECTURE)["prompts"]["near"]
    with torch.inference_mode():
        logits = model(torch.tensor([prompt["ids"]]), positions=torch.tensor([prompt["positions"]]))
    agree("the mended model", logits.log_softmax(-1), tap(ARCHITECTURE, "near/logits"), within=AGREES)
