"""Small valid vocabularies, as `read_gguf` returns their metadata."""

from typing import Any

from nanollama.text.sentencepiece.model import PieceType

KEY = "tokenizer.ggml."
N, U, C, D, X, B = (PieceType[name] for name in ("NORMAL", "UNKNOWN", "CONTROL", "USER_DEFINED", "UNUSED", "BYTE"))


def scored(**changes: Any) -> dict[str, Any]:
    """ "llama": ids 0 to 2 are `<unk>` `<s>` `</s>`, 3 to 258 the bytes, then pieces with scores."""
    tokens = {"<unk>": (U, 0.0), "<s>": (C, 0.0), "</s>": (C, 0.0)}
    tokens |= {f"<0x{byte:02X}>": (B, 0.0) for byte in range(256)}
    tokens |= dict.fromkeys("▁abc", (N, -100.0))
    tokens |= {"ab": (N, -2.0), "bc": (N, -1.0), "▁a": (N, -3.0), "abc": (N, -4.0), "▁▁": (N, -5.0)}
    return changed(
        {
            "model": "llama",
            "tokens": list(tokens),
            "token_type": [int(type) for type, _ in tokens.values()],
            "scores": [score for _, score in tokens.values()],
        },
        changes,
    )


def paired(tokens: dict[str, PieceType], merges: list[Any], **changes: Any) -> dict[str, Any]:
    """ "gpt2": these tokens, from id 0 on."""
    types = [int(type) for type in tokens.values()]
    return changed({"model": "gpt2", "pre": "gpt-2", "tokens": list(tokens), "token_type": types, "merges": merges}, changes)


def changed(metadata: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The metadata with prefixed keys and with changes; None removes a key."""
    merged = {KEY + name: value for name, value in (metadata | changes).items()}
    return {key: value for key, value in merged.items() if value is not None}
