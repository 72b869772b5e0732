"""Positions: a common shift changes nothing, and padding, which has none, gives finite numbers."""

import torch

from conformance.checks import check
from conformance.checks.assertions import expect
from conformance.checks.checkpoint.loading import loaded
from conformance.truth.cases import case, truth_of
from conformance.truth.compare import row_error

SHIFTED_BAR = 1e-9  # angles of positions beyond 1000 are rounded at 1e-13


@check("ROPE-002", area="rope", each=("LlamaForCausalLM", "Qwen2ForCausalLM", "Gemma3ForCausalLM", "SmolLM3ForCausalLM"))
def a_shift_of_all_positions_changes_nothing(family: str) -> None:
    """For models without learned positions and without length-dependent frequencies."""
    this = case(family)
    model = loaded(this, this.load)
    ids, positions = this.prompt("near")
    want = truth_of(family, "near")["logits"].log_softmax(-1)
    for shift in (1, 1000):
        error = row_error(model(ids[None], positions=positions[None] + shift).log_softmax(-1), want)
        expect("rotary", error <= SHIFTED_BAR, f"all positions {shift} larger: off by {error:.1e} (bar {SHIFTED_BAR:.0e})")


@check("MASK-002", area="batching", each=("LlamaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "GPT2LMHeadModel"))
def padding_is_finite(family: str) -> None:
    """Rows and columns of padding, by every implementation of attention, with a cache and without."""
    this = case(family)
    model = loaded(this, this.load)
    ids = this.long(12).view(3, 4)
    positions = torch.tensor([[-1, -1, 0, 1], [-1] * 4, [0, 1, 2, -1]])
    for implementation in {"eager", model.layers[0].self_attn.attend.implementation}:  # type: ignore[union-attr]
        for layer in model.layers:
            layer.self_attn.attend.implementation = implementation  # type: ignore[union-attr]
        for cache in (None, model.new_cache(3, 8)):
            out = model(ids, cache=cache, positions=positions)
            finite = bool(out.isfinite().all())
            expect(
                "model.kv_cache.visible",
                finite,
                f"{implementation}, {'with' if cache else 'without'} a cache: padding gives NaN or infinity",
            )


@check("WIND-004", area="kv_cache", each=("MistralForCausalLM", "Gemma3ForCausalLM"))
def a_layer_with_a_window_stores_no_more_than_the_window(family: str) -> None:
    this = case(family)
    model = loaded(this, this.load)
    for longest in (3, 5, 6, 1000):
        cache = model.new_cache(2, longest)
        for layer, window in zip(cache.layers, this.spec.windows, strict=True):
            kept = layer.k.numel() // (2 * this.spec.kv_heads * this.spec.head_dim)
            slots = min(longest, window or longest)
            what = f"keys of a layer with the window {window} in a cache of {longest}"
            expect(
                "model.kv_cache.KVCache.size",
                slots <= kept <= slots + 1,
                f"{kept} {what}; expected {slots}, and one for padding",
            )
