"""Feature ablation: if logits are off and nothing else is shown, switch features off until the engine agrees.

First all features of the failing model are off. If the engine then agrees, each is switched on alone: features with which it
agrees are cleared by `conformance.judging.verdicts`, and the rest are at fault. If it disagrees even without features, the
fault is in a part that all these models share, which ablation can't locate.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from conformance.engines.engine import Engine
from conformance.engines.subject import Subject, changed
from conformance.judging.bars import Bars
from conformance.judging.evidence.case_comparison import CaseComparison
from conformance.judging.evidence.observations import Observation, State

Changes = Mapping[str, Any]
EVERYTHING = 8192  # a window wider than any prompt


def switches(subject: Subject) -> dict[str, Changes]:
    """The features that can be switched off in this model, each with its changes of config.json."""
    raw, spec = subject.raw, subject.spec
    off: dict[str, Changes | None] = {
        "scaling": unscaled(raw),
        "window": {"sliding_window": EVERYTHING} if any(spec.windows) else None,
        "cap on scores": {"attn_logit_softcapping": None} if spec.attention_cap else None,
        "cap on logits": {"final_logit_softcapping": None} if spec.logit_cap else None,
        "attention biases": {"attention_bias": False} if raw.get("attention_bias") else None,
        "MLP biases": {"mlp_bias": False} if raw.get("mlp_bias") else None,
        "shared keys": {"num_key_value_heads": spec.heads} if spec.kv_heads < spec.heads else None,
        "head width": {"hidden_size": spec.heads * spec.head_dim} if "head_dim" in raw else None,
        "query scale": {"query_pre_attn_scalar": spec.head_dim} if "query_pre_attn_scalar" in raw else None,
        "partial rotation": {"partial_rotary_factor": 1.0} if raw.get("partial_rotary_factor", 1) < 1 else None,
        "layers without rotation": {"no_rope_layers": [1] * spec.layers} if "no_rope_layers" in raw else None,
        "scale by layer": {"scale_attn_by_inverse_layer_idx": False} if "scale_attn_by_inverse_layer_idx" in raw else None,
        "raw router weights": {"norm_topk_prob": True} if raw.get("norm_topk_prob") is False else None,
        "dense layers": {"mlp_only_layers": []} if raw.get("mlp_only_layers") else None,
        "untied head": {"tie_word_embeddings": True} if not spec.tied else None,
        "tied head": {"tie_word_embeddings": False} if spec.tied else None,
        "epsilon": {"layer_norm_epsilon" if spec.norm == "layer" else "rms_norm_eps": 1e-6},
    }
    return {name: changes for name, changes in off.items() if changes}


def unscaled(raw: Changes) -> Changes | None:
    """The same angles without scaling, in the spelling of the file."""
    if raw.get("rope_scaling"):
        return {"rope_scaling": None}
    given = raw.get("rope_parameters") or {}
    kinds = {key: value for key, value in given.items() if isinstance(value, Mapping)} or {"": given}
    plain = {key: {"rope_type": "default", "rope_theta": value.get("rope_theta", 1e4)} for key, value in kinds.items()}
    if all(value.get("rope_type", "default") == "default" for value in kinds.values()):
        return None
    return {"rope_parameters": plain.get("", plain)}


def ablate(engine: Engine, subject: Subject, bars: Bars) -> Iterator[Observation]:
    """Comparisons of logits that fit, with all features off and with each one alone."""
    off = switches(subject)
    bottom = ablation(engine, subject, "with every feature off", off, bars)
    yield from bottom
    for name in off if bottom else ():
        rest = {other: changes for other, changes in off.items() if other != name}
        yield from ablation(engine, subject, f"with only: {name}", rest, bars)


def ablation(engine: Engine, base: Subject, name: str, off: Mapping[str, Changes], bars: Bars) -> list[Observation]:
    """The comparisons of one variation of a model; none if it can't be made or run, or does not fit. They cover parts of the
    model, not the reading of config.json or of checkpoints."""
    try:
        subject = changed(base, name, {key: value for changes in off.values() for key, value in changes.items()})
        engine.load(subject.case.folder)
        found = CaseComparison(engine, subject, bars).logits_only()
    except Exception:  # not every such model is possible: skip it
        return []
    return found if found and all(o.state is State.FITS for o in found) else []
