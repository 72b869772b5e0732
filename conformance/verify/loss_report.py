"""The report of `nanollama verify` for quantized models: format loss, kernel error, and the likelihood of a text."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from conformance.truth.compare import TapError, relative_error, worst
from conformance.truth.replay_modules import kernel_errors
from conformance.verify.loss import ALLOWED, WeightLoss, by_layer, layer_of
from conformance.verify.perplexity import agreement, perplexity
from conformance.verify.side import Side
from nanollama.checkpoint.source import open_source
from nanollama.errors import NanollamaError
from nanollama.lm import load_model, load_text

WINDOW = 512  # tokens at a time, or the model's context if that is less
LONGEST_TEXT = 100_000_000  # bytes of a text file


def loss_report(
    losses: Sequence[WeightLoss], unmatched: list[str], accumulated: list[TapError], replayed: list[TapError]
) -> int:
    """Print one line per layer: its least explained tensor, its modules on A's inputs, the residual stream."""
    modules, stream = worst_by_layer(replayed), {e.name: e for e in accumulated}
    print(f"format loss: {len(losses)} tensors compared, both models in float64\n")
    print(f"{'':14}{'least explained weight':26} {'stored':9} {'error':>8} {'own':>8}  on A's input  stream")
    for layer, loss in by_layer(losses).items():
        part = loss.name.removeprefix(f"{layer}.").removesuffix(".weight") if layer.startswith("layers.") else ""
        parts = [f"{e.error:12.1e}" if e else f"{'':12}" for e in (modules.get(layer), stream.get(layer))]
        mark = "" if loss.is_explained else "  <- more than its format loses"
        print(f"{layer:14}{part:26} {loss.stored:9} {loss.error:8.1e} {loss.format_loss:8.1e}  {parts[0]} {parts[1][2:]}{mark}")
    wrong = [loss.name for loss in losses if not loss.is_explained] + unmatched
    if not wrong:
        print(f"\nSAME up to its formats: no weight is off by more than {ALLOWED:g} times what its format loses")
        return 0
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    why = " (not in both with the same shape)" if wrong[0] in unmatched else ""
    print(f"\nDIFFERENT: {wrong[0].removesuffix('.weight')}{why}{more}")
    return 1


def worst_by_layer(errors: list[TapError]) -> dict[str, TapError]:
    """The largest error among the modules of each layer."""
    layers: dict[str, list[TapError]] = {}
    for error in errors:
        layers.setdefault(layer_of(error.name), []).append(error)
    return {layer: worst(each) for layer, each in layers.items()}


def kernel_report(side: Side, ids: Tensor) -> None:
    """Print the error of B in its compute dtype against B in float64, which excludes the loss of the format."""
    if side.model is None:
        return
    run = load_model(side.path, "auto", "cpu", side.quantize)
    reference = load_model(side.path, "float64", "cpu", side.quantize)
    modules = kernel_errors(reference, run, ids)
    with torch.inference_mode():
        found, exact = run(ids).double(), reference(ids)
    error = relative_error(found, exact)
    dtype = str(run.dtype).removeprefix("torch.")
    print(f"\nkernel error: B in {dtype} against float64, on the same weights")
    print(f"  worst module on the same input   {worst(modules).error:9.1e}  {worst(modules).name}")
    print(f"  logits of the whole model        {error:9.1e}")


def text_report(one: Side, two: Side, path: Path, tokens: int) -> None:
    """Print KL divergence, top-1 agreement and perplexity of both models on the first tokens of a text file."""
    ids = text_ids(one, two, path)[:tokens]
    context = min(open_source(side.path).config.max_position_embeddings for side in (one, two))
    window = min(WINDOW, context)
    stride = window // 2
    with torch.inference_mode():
        both = agreement(one.logits, two.logits, ids, window, stride)
        perplexities = [perplexity(side.logits, ids, window, stride) for side in (one, two)]
    print(f"\n{path}: {len(ids):,} tokens, windows of {window}, stride {stride}")
    print(f"  KL(A ‖ B)          {both.kl:9.1e} nats a token, {both.largest_kl:.1e} at most")
    print(f"  top-1 agreement    {both.top1:9.2%}")
    print(
        f"  perplexity         {perplexities[0]:9.3f} → {perplexities[1]:.3f}  ({perplexities[1] / perplexities[0] - 1:+.2%})"
    )


def text_ids(one: Side, two: Side, path: Path) -> list[int]:
    """The ids of a text file, by the tokenizer of A, else of B; NanollamaError if it can't be read."""
    try:
        if path.stat().st_size > LONGEST_TEXT:
            raise NanollamaError(f"{path} is larger than {LONGEST_TEXT:,} bytes; give a shorter text")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NanollamaError(f"{path} can't be read as a text: {error}") from None
    for side in (one, two):
        tokenizer = load_text(open_source(side.path))[0]
        if tokenizer is not None:
            return tokenizer.encode(text)
    raise NanollamaError("neither model has a tokenizer, so there is no way to read a text; leave --text out")
