"""`nanollama verify A B`: are two models the same function, and if not, which module is the first that differs?

*Accumulated*: each model runs alone; errors spread downstream, and the first tap that differs bounds the cause. *Replayed*:
every small module of B gets the input of A's module, so that each shows only its own error, and one run finds several
independent differences. If B stores A's numbers in a format that loses some, see `loss.py`.
"""

from pathlib import Path

import torch

from conformance.models.weights import derived_ids
from conformance.truth.compare import SEMANTIC_BAR, TapError, compare_taps, first_beyond
from conformance.truth.replay_modules import replay
from conformance.verify.loss import is_lossy, unmatched, weight_losses
from conformance.verify.loss_report import kernel_report, loss_report, text_report
from conformance.verify.side import load_side
from nanollama.errors import NanollamaError

PROMPT = 24  # tokens of the derived prompt


def verify_command(
    a: str,
    b: str,
    dtype: str = "float64",
    bar: float = SEMANTIC_BAR,
    prompt: list[int] | None = None,
    text: Path | None = None,
    tokens: int = 2048,
) -> int:
    """Compare, print, and return the exit status: 0 the same function (up to what B's formats lose), 1 different."""
    one, two = load_side(a, dtype), load_side(b, dtype)
    print(f"A  {one.name}\nB  {two.name}")
    vocabulary = min(one.vocab_size, two.vocab_size)
    if prompt and (max(prompt) >= vocabulary or min(prompt) < 0):
        raise NanollamaError(f"prompt id {max(prompt)} is not in the vocabulary of both models ({vocabulary} tokens)")
    ids = torch.tensor([prompt or derived_ids(0, "verify prompt", PROMPT, vocabulary)])
    accumulated = compare_taps(two.taps(ids), one.taps(ids))
    replayed = replay(one.model, two.model, ids) if one.model is not None and two.model is not None else []
    stored = [side.stored() for side in (one, two)]
    if is_lossy(*stored):
        status = loss_report(list(weight_losses(*stored)), unmatched(*stored), accumulated, replayed)
        kernel_report(two, ids)
    else:
        status = exact_report(accumulated, replayed, bar, f"{ids.shape[1]} tokens in {dtype}")
    if text is not None:
        text_report(one, two, text, tokens)
    return status


def exact_report(accumulated: list[TapError], replayed: list[TapError], bar: float, what: str) -> int:
    """Print the comparison of models that store the same numbers; returns the exit status."""
    beyond = [e for e in accumulated if not e.error <= bar]
    own = [e for e in replayed if not e.error <= bar]
    own = [e for e in own if not any(part.name.startswith(f"{e.name}.") for part in own)]  # a part explains its whole
    compared = f"{len(accumulated)} taps" + (f" and {len(replayed)} modules" if replayed else "")
    print(f"{compared} on {what}, bar {bar:.0e}\n")
    if not beyond and not own:
        largest = max(e.error for e in accumulated)
        print(f"SAME: the largest relative error is {largest:.1e}")
        return 0
    report(accumulated, own, bar)
    return 1


def report(accumulated: list[TapError], own: list[TapError], bar: float) -> None:
    """Print the taps around the first one that differs, then the modules that differ by themselves."""
    first = first_beyond(accumulated, bar)
    if first:
        at = accumulated.index(first)
        print("each model alone, along the data path          relative error")
        for e in accumulated[max(0, at - 2) : at + 3]:
            print(f"  {e.name:44} {e.error:9.1e}" + ("  <- first difference" if e is first else ""))
        rest = len(accumulated) - at - 3
        print(f"  … {rest} taps more" if rest > 0 else "")
    if own:
        print("B's modules on A's inputs                      relative error")
        for e in own[:8]:
            print(f"  {e.name:44} {e.error:9.1e}")
        if len(own) > 8:
            print(f"  … {len(own) - 8} modules more")
    if own:
        cause = own[0].name + (f" and {len(own) - 1} more" if len(own) > 1 else "")
    elif first and (at := accumulated.index(first)):
        cause = f"between {accumulated[at - 1].name} and {first.name}"
    else:
        cause = accumulated[0].name
    print(f"\nDIFFERENT: {cause}")
