"""Hypotheses on tensors: missing, exchanged, or laid out otherwise."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from conformance.diagnosis.causes.hypotheses.hypothesis import Hypothesis, Tensors
from conformance.truth.spec import Spec

BIASES = {
    "q, k and v": ("q_proj.bias", "k_proj.bias", "v_proj.bias"),
    "q": ("q_proj.bias",),
    "k": ("k_proj.bias",),
    "v": ("v_proj.bias",),
    "attention's output": ("o_proj.bias",),
    "the MLP": ("gate_proj.bias", "up_proj.bias", "down_proj.bias"),
    "down_proj": ("down_proj.bias",),
    "norms": ("norm.bias",),
}
PAIRS = (
    ("gate_proj", "up_proj"),
    ("k_proj", "v_proj"),
    ("q_proj", "k_proj"),
    ("q_proj", "o_proj"),
    ("q_norm", "k_norm"),
    ("input_layernorm", "post_attention_layernorm"),
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("pre_feedforward_layernorm", "post_feedforward_layernorm"),
    ("post_attention_layernorm", "pre_feedforward_layernorm"),
)


def tensor_hypotheses(spec: Spec, tensors: Tensors) -> Iterator[Hypothesis]:
    """Every tensor's fates."""
    for what, ends in BIASES.items():
        if what == "k" and not any(spec.ropes):
            continue  # a bias of keys that don't turn moves all scores of a query alike
        lost = {name: torch.zeros_like(t) for name, t in tensors.items() if name.endswith(ends)}
        if lost:
            late = ", or only after the rotation, which is the same" if what == "k" and any(spec.ropes) else ""
            sentence = f"the biases of {what} are not added{late}"
            yield Hypothesis("norm" if what == "norms" else "matrices", sentence, tensors=lost)
    for one, other in PAIRS:
        yield from exchanged(tensors, one, other)
    yield from laid_out(spec, tensors)
    yield from fused(spec, tensors)
    yield from tables(spec, tensors)


def exchanged(tensors: Tensors, one: str, other: str) -> Iterator[Hypothesis]:
    """Two modules of one layer with each other's tensors, and each with those of the other."""
    both, first, second = dict[str, Tensor](), dict[str, Tensor](), dict[str, Tensor]()
    for name, tensor in tensors.items():
        twin = name.replace(f".{one}.", f".{other}.")
        if twin != name and twin in tensors and tensors[twin].shape == tensor.shape:
            both |= {name: tensors[twin], twin: tensor}
            first, second = first | {name: tensors[twin]}, second | {twin: tensor}
    label = (
        "norm" if "norm" in one else "activation" if one == "gate_proj" else "matrices"
    )  # gate and up: the nonlinearity moves
    if both:
        yield Hypothesis(label, f"{one} and {other} are exchanged", tensors=both)
        yield Hypothesis(label, f"{one} has the tensors of {other}", tensors=first)
        yield Hypothesis(label, f"{other} has the tensors of {one}", tensors=second)


def laid_out(spec: Spec, tensors: Tensors) -> Iterator[Hypothesis]:
    """Rows in another order, matrices not transposed."""
    size = spec.head_dim
    dim = next((rope.dim for rope in spec.ropes if rope), size)
    halves = torch.cat((torch.arange(dim).view(2, -1).T.flatten(), torch.arange(dim, size)))
    for parts in (("q_proj", "k_proj"), ("q_proj",), ("k_proj",)):
        for order, what in ((halves, "of GGUF's llama"), (halves.argsort(), "of transformers, taken for the other one")):
            rows = {n: by_head(t, order, size) for n, t in tensors.items() if n.split(".")[-2] in parts}
            if rows and any(spec.ropes):
                sentence = f"the rows of {' and '.join(parts)} are in the order {what}: other pairs are rotated together"
                yield Hypothesis("turning", sentence, tensors=rows)
    for end in ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "gate_proj", "down_proj"):
        square = {n: t.T for n, t in tensors.items() if n.endswith(f"{end}.weight") and t.shape[0] == t.shape[1]}
        if square:
            yield Hypothesis("matrices", f"the square matrix {end} is transposed", tensors=square)


def by_head(tensor: Tensor, order: Tensor, size: int) -> Tensor:
    """The rows of each head in another order."""
    return tensor.unflatten(0, (-1, size))[:, order].flatten(0, 1)


def fused(spec: Spec, tensors: Tensors) -> Iterator[Hypothesis]:
    """One matrix for several, cut at the wrong places."""
    kinds = {"q_proj": spec.heads, "k_proj": spec.kv_heads, "v_proj": spec.kv_heads}
    yield from recut(tensors, ("q_proj", "k_proj", "v_proj"), list(kinds.values()), spec.head_dim)
    if spec.gated:
        yield from recut(tensors, ("gate_proj", "up_proj"), [1, 1], 1)


def recut(tensors: Tensors, parts: Sequence[str], blocks: Sequence[int], size: int) -> Iterator[Hypothesis]:
    """A stack of matrices taken apart block by block in turn."""
    found: dict[str, Tensor] = {}
    for name in tensors:
        names = [name.replace(f".{parts[0]}.", f".{part}.") for part in parts]
        if f".{parts[0]}." not in name or not all(each in tensors for each in names):
            continue
        stack = torch.cat([tensors[each] for each in names])
        per, groups = [b // min(blocks) * size for b in blocks], len(stack) // (sum(b // min(blocks) for b in blocks) * size)
        pieces = stack.unflatten(0, (groups, -1)).split(per, 1)
        found |= {each: piece.flatten(0, 1) for each, piece in zip(names, pieces, strict=True)}
    step = "head by head" if size > 1 else "row by row"
    sentence = f"the fused matrix of {', '.join(parts)} is taken apart {step}, not one part behind the other"
    if found and all(value.shape == tensors[name].shape for name, value in found.items()):
        yield Hypothesis("matrices", sentence, tensors=found)


def tables(spec: Spec, tensors: Tensors) -> Iterator[Hypothesis]:
    """Embeddings, positions, head and experts."""
    words = tensors["embed_tokens.weight"]
    if not torch.equal(tensors["lm_head.weight"], words):
        yield Hypothesis(
            "head", "logits are made with the token embeddings, not with lm_head", tensors={"lm_head.weight": words}
        )
    if spec.learned_positions:
        table = tensors["embed_positions.weight"]
        for by in (1, 2, -1):
            sentence = f"learned positions count from {by}"
            yield Hypothesis("embedding", sentence, tensors={"embed_positions.weight": table.roll(-by, 0)})
    experts = sorted(range(spec.experts), key=str)
    if experts != list(range(spec.experts)):
        moved = {}
        for name, tensor in tensors.items():
            if ".experts." in name:
                head, _, rest = name.partition(".experts.")
                number, _, end = rest.partition(".")
                moved[f"{head}.experts.{experts.index(int(number))}.{end}"] = tensor
        yield Hypothesis("routing", "experts are in the order of their numbers as texts: 0, 1, 10, 11, 2", tensors=moved)
