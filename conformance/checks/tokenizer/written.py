"""Tokenizers in another form, by hand: pre-tokenizers by name and back, merges as scores and back."""

# mypy: disable-error-code="arg-type,assignment,attr-defined,misc"
# tables mix good and bad arguments

import itertools
from typing import Any

from conformance.checks import check
from conformance.checks.assertions import expect, expect_equal, expect_refused
from conformance.checks.tokenizer.base import by_score, merged, rank_of
from nanollama.text.bpe import byte_level as bytebpe
from nanollama.text.convert import pretokenizer_names as cuts
from nanollama.text.convert import spaced_bpe

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(pattern: str, **changes: Any) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False, **changes}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


@check("TOKN-016", "CONF-009", area="tokenization")
def pre_tokenizers_have_names_or_none() -> None:
    place, llama, qwen = (
        "text.convert.pretokenizer_names.pre_name",
        bytebpe.PRE_TOKENIZERS["llama3"],
        bytebpe.PRE_TOKENIZERS["qwen2"],
    )
    digits = {"type": "Digits", "individual_digits": True}
    for step, composes, whole, name in (
        (sequence(split(llama), BYTE_LEVEL), False, True, "llama-bpe"),
        (sequence(split(llama), BYTE_LEVEL), False, False, "dbrx"),
        (sequence(split(qwen), BYTE_LEVEL), True, False, "qwen2"),
        ({**BYTE_LEVEL, "use_regex": True}, False, False, "gpt-2"),
        ({**BYTE_LEVEL, "use_regex": True}, True, False, "olmo"),
        (sequence(digits, {**BYTE_LEVEL, "use_regex": True}), False, False, "smollm"),
        (sequence(split(r"\p{N}"), {**BYTE_LEVEL, "use_regex": True}), False, False, "smollm"),
    ):
        expect_equal(place, cuts.pre_name(step, composes=composes, whole_words=whole), name, f"the name of {str(step)[:60]}")
    for step, whole, part in (
        (sequence(split("abc"), BYTE_LEVEL), False, "abc"),
        (sequence(split(qwen), BYTE_LEVEL), True, "ignore_merges"),
        (sequence(split(llama, behavior="Removed"), BYTE_LEVEL), False, "Removed"),
        (sequence(split(llama, invert=True), BYTE_LEVEL), False, "invert"),
        (
            sequence({"type": "Split", "pattern": {"String": llama}, "behavior": "Isolated", "invert": False}, BYTE_LEVEL),
            True,
            "String",
        ),
        ({**BYTE_LEVEL, "add_prefix_space": True}, False, "add_prefix_space"),
        ({"type": "Whitespace"}, False, "Whitespace"),
        (sequence({"type": "Punctuation"}, BYTE_LEVEL), False, "Punctuation"),
        (None, False, "None"),
    ):
        expect_refused(
            "text.convert.pretokenizer_names.patterns_of",
            lambda s=step, w=whole: cuts.pre_name(s, composes=False, whole_words=w),
            part,
            str(step)[:60],
        )


@check("TOKN-016", area="tokenization")
def names_become_pre_tokenizers_again() -> None:
    for name in ("llama-bpe", "qwen2", "gpt-2", "starcoder", "deepseek-v3", "tekken"):
        made = cuts.pre_tokenizer_of(name)
        expect_equal(
            "text.convert.pretokenizer_names.pre_tokenizer_of",
            made["pretokenizers"][-1],
            BYTE_LEVEL,
            f"the last step of {name}",
        )
        found = [cuts.pre_name(made, composes=False, whole_words=whole) for whole in (True, False) if fits(made, whole)]
        expect("text.convert.pretokenizer_names.pre_tokenizer_of", len(found) > 0, f"{name} has no name any more")
    expect_refused(
        "text.convert.pretokenizer_names.pre_tokenizer_of",
        lambda: cuts.pre_tokenizer_of("superbpe"),
        "superbpe",
        "a cut that is no pattern",
    )
    expect_refused(
        "text.convert.pretokenizer_names.pre_tokenizer_of", lambda: cuts.pre_tokenizer_of("none"), "none", "an unknown name"
    )
    expect_equal(
        "text.convert.pretokenizer_names.unescaped",
        cuts.unescaped(r"[\u4e00-\u9fa5]\U0001F600\n"),
        "[一-龥]😀\\n",
        "characters in place of codes",
    )
    pairs = ((r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", cuts.ASCII_CONTRACTIONS), (r"[\p{L}]", r"\p{L}"), ("\r", r"\r"), (r"\Z", "$"))
    for pattern, wanted in pairs:
        expect_equal(
            "text.convert.pretokenizer_names.canonical", cuts.canonical(pattern), wanted, f"{pattern!r} in one spelling"
        )


def fits(step: dict[str, Any], whole: bool) -> bool:
    try:
        return bool(cuts.pre_name(step, composes=False, whole_words=whole))
    except ValueError:
        return False


@check("TOKN-012", "TOKN-011", area="tokenization")
def merges_become_scores_and_back() -> None:
    tokens = {"a": 0, "b": 1, "ab": 2, "ba": 3, "aba": 4}
    merges = [("a", "b"), ("b", "a"), ("a", "ba"), ("ab", "a")]
    scores = spaced_bpe.scores_of(tokens, merges)
    order = sorted(("ab", "ba", "aba"), key=lambda token: -scores[tokens[token]])
    expect_equal("text.convert.spaced_bpe.scores_of", order, ["ab", "ba", "aba"], "tokens by score")
    by_token = {token: scores[id] for token, id in tokens.items()}
    ranks = {pair: place for place, pair in enumerate(merges)}
    for length in range(6):
        for letters in itertools.product("ab", repeat=length):
            text = "".join(letters)
            expect_equal(
                "text.convert.spaced_bpe.scores_of",
                by_score(text, by_token),
                merged(text, rank_of(ranks)),
                f"{text!r} by scores and merges",
            )
    back = spaced_bpe.merges_of({"a": -9.0, "b": -9.0, "ab": -1.0, "ba": -2.0, "aba": -3.0})
    expect_equal("text.convert.spaced_bpe.merges_of", back, merges, "merges of scores")
    expect_equal(
        "text.convert.spaced_bpe.merges_of",
        spaced_bpe.merges_of({"a": 0.0, "b": 0.0, "ab": -1.0, "ba": -1.0}),
        None,
        "tied scores",
    )
    runs = spaced_bpe.merges_of({"x": 0.0, "xx": -1.0, "xxxx": -1.0})
    expect("text.convert.spaced_bpe.settles_ties", runs is not None, "runs of one letter that share a score are refused")
    expect_equal(
        "text.convert.spaced_bpe.halves",
        list(spaced_bpe.halves("aba", tokens)),
        [("a", "ba"), ("ab", "a")],
        "halves of a token",
    )
    for bad, part in (([("a", "b")], "never merge"), ([("a", "ba"), ("a", "b"), ("ab", "a"), ("b", "a")], "neighbours")):
        expect_refused(
            "text.convert.spaced_bpe.scores_of", lambda bad=bad: spaced_bpe.scores_of(tokens, bad), part, f"merges {bad}"
        )
    expect_refused(
        "text.convert.spaced_bpe.halves", lambda: list(spaced_bpe.halves("a" * 1025, {})), "1,025", "a token of 1025 letters"
    )


@check("TOKN-030", "CONF-009", area="tokenization")
def the_space_before_a_text_is_read_from_a_tokenizer_json() -> None:
    place, replace, prepend = "text.convert.spaced_bpe.space_prefix", spaced_bpe.REPLACE, spaced_bpe.PREPEND
    meta = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    for normalizer, cut, wanted in (
        ({"type": "Sequence", "normalizers": [prepend, replace]}, None, True),
        (replace, None, False),
        (replace, spaced_bpe.NO_CUT, False),
        (None, meta, True),
        (None, {**meta, "prepend_scheme": "never"}, False),
    ):
        got = spaced_bpe.space_prefix({"normalizer": normalizer, "pre_tokenizer": cut})
        expect_equal(place, got, wanted, f"normalizer {normalizer}, pre-tokenizer {cut}")
    for normalizer, cut in ((prepend, None), (None, {**meta, "split": True}), (replace, meta), (None, None)):
        content = {"normalizer": normalizer, "pre_tokenizer": cut}
        expect_refused(place, lambda content=content: spaced_bpe.space_prefix(content), "byte_fallback", f"{content}")
