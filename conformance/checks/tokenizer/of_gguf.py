"""Tokenizers from GGUF metadata, by hand: types and roles, how text is split, BOS and EOS, damage."""

# mypy: disable-error-code="misc"
# tables mix good and bad arguments

from typing import Any

from conformance.checks import check
from conformance.checks.assertions import expect, expect_equal, expect_refused
from conformance.checks.generation.rigged import fresh
from conformance.fuzz.valid_vocabulary import KEY, B, C, D, N, U, X, paired, scored
from nanollama.text.llamacpp import models as gguf_models
from nanollama.text.llamacpp import special as gguf_special
from nanollama.text.llamacpp import tokens as gguf_tokens
from nanollama.text.llamacpp import vocabulary as gguf_vocabulary
from nanollama.text.sentencepiece.model import PieceType


def numbered(*tokens: str) -> dict[str, int]:
    return {token: id for id, token in enumerate(tokens)}


def loaded(metadata: dict[str, Any]) -> Any:
    """The tokenizer; `spelled(text)` gives the texts of its ids."""
    tokenizer = gguf_vocabulary.load_gguf_tokenizer(metadata)
    expect("text.llamacpp.vocabulary.load_gguf_tokenizer", tokenizer is not None, "no tokenizer was found")
    return tokenizer


def spelled(tokenizer: Any, text: str, **options: bool) -> list[str]:
    return [tokenizer.id_to_token(i) for i in tokenizer.encode(text, **options)]


@check("TOKN-040", area="tokenization")
def roles_come_from_the_file_or_from_llama() -> None:
    place = "text.llamacpp.tokens.read_roles"
    data = {
        KEY + "bos_token_id": 5,
        KEY + "eos_token_id": 6,
        KEY + "unknown_token_id": 2**32 - 1,
        KEY + "seperator_token_id": 0,
    }
    expect_equal(place, gguf_tokens.read_roles(data, "gpt2", 7), {"bos": 5, "eos": 6, "sep": 0}, "roles in a file")
    expect_equal(place, gguf_tokens.read_roles({}, "llama", 2), {"unk": 0, "bos": 1}, "roles of a small llama")
    expect_equal(
        place, gguf_tokens.read_roles({KEY + "bos_token_id": 0}, "llama", 9), {"unk": 0, "bos": 0, "eos": 2}, "roles of a llama"
    )
    expect_equal(
        place,
        gguf_tokens.read_roles({KEY + "fim_pre_token_id": 1, KEY + "prefix_token_id": 2}, "gpt2", 9),
        {"fim_pre": 2},
        "old names",
    )
    for bad in (7, -1):
        expect_refused(
            place, lambda bad=bad: gguf_tokens.read_roles({KEY + "eos_token_id": bad}, "gpt2", 7), "eos_token_id", f"id {bad}"
        )
    expect_refused(
        "text.llamacpp.tokens.value",
        lambda: gguf_tokens.read_roles({KEY + "eos_token_id": "1"}, "gpt2", 7),
        "eos_token_id",
        "a text",
    )


@check("TOKN-041", "EOSX-006", area="tokenization")
def types_are_settled_by_known_texts() -> None:
    place = "text.llamacpp.special.settle_types"
    ids = numbered("a", "<|im_end|>", "</s>", "<fim_prefix>", "[PAD]", "<|message|>", "x")
    types, ends = gguf_special.settle_types(ids, [N] * 7, {"eos": 6, "fim_suf": 0})
    expect_equal(place, (types, set(ends)), ([N, C, C, C, C, D, N], {1, 2, 4, 6}), "types and ends")
    types, ends = gguf_special.settle_types(ids, [N] * 7, {"fim_pre": 6, "eom": 0, "eot": 3})
    expect_equal(place, (types[3], set(ends)), (N, {0, 1, 2, 3, 4}), "with named roles")
    ids = numbered("<|end|>", "<|call|>", "<|return|>")
    expect_equal(
        place,
        gguf_special.settle_types(ids, [C] * 3, {}),
        ([D, C, C], frozenset({1, 2})),
        "gpt-oss: <|end|> ends a message only",
    )
    ids = numbered("<|end|>", "<|call|>")
    expect_equal(place, gguf_special.settle_types(ids, [C] * 2, {}), ([C, C], frozenset({0, 1})), "<|end|> without <|return|>")
    ids = numbered("</s>", "<|tool_response>")
    expect_equal(
        place, gguf_special.settle_types(ids, [C] * 2, {}), ([N, C], frozenset({1})), "Gemma 4: </s> is a piece of HTML"
    )


@check("TOKN-023", area="tokenization")
def special_tokens_take_white_space_by_name() -> None:
    place, tokens, types = "text.llamacpp.special.special_tokens", ["a", "<s>", "<u>", "<unk>", "<mask>"], [N, C, D, U, C]

    def found(name: str, pre: str) -> list[tuple[int, bool, bool, bool]]:
        return [(t.id, t.special, t.lstrip, t.rstrip) for t in gguf_special.special_tokens(tokens, types, name, pre)]

    plain = [(1, True, False, False), (2, False, False, False), (3, True, False, False), (4, True, False, False)]
    expect_equal(place, found("", "gpt-2"), plain, "special tokens")
    phi = [(1, True, False, False), (2, False, False, True), (3, True, False, False), (4, True, False, True)]
    expect_equal(place, found("Phi-3 mini", "gpt-2"), phi, "those of Phi-3")
    expect_equal(place, found("x", "jina-v2-de"), [*plain[:3], (4, True, True, False)], "those of Jina")
    tokens[4] = "[MASK]"
    expect_equal(place, found("Modern-BERT", "gpt-2"), [*plain[:3], (4, True, True, False)], "those of ModernBERT")


@check("TOKN-042", "ERRS-002", area="tokenization")
def token_lists_are_checked() -> None:
    place = "text.llamacpp.tokens.read_tokens"
    good = paired({"a": N, "": N, "<0x41>": B, "c": X}, [])
    found = gguf_tokens.read_tokens(good, "gpt2")
    expect_equal(place, (found.tokens, found.types), (["a", "[EMPTY_1]", "<0x41>", "c"], [N, N, B, X]), "tokens and types")
    untyped = {key: value for key, value in good.items() if not key.endswith("token_type")}
    expect_equal(
        "text.llamacpp.tokens.read_types",
        gguf_tokens.read_tokens(untyped, "gpt2").types,
        [N] * 4,
        "types of a file without them",
    )
    for tokens, types, part in (
        ([], [], "empty"),
        (["a", "a"], [1, 1], "every token once"),
        (["a", "b\0"], [1, 1], "NUL"),
        (["a", "\udcff"], [1, 1], "UTF-8"),
        (["a", 3], [1, 1], "tokens"),
        (["a", "b"], [1], "2 tokens"),
        (["a", "b"], [1, 9], "type 9"),
        (["a", "b"], [1, 0], "type 0"),
        (["a", "b"], [1, True], "token_type"),
        (["a", "b"], [1, 6], "of type byte"),
        ("ab", [1, 1], "tokens"),
    ):
        data = {KEY + "tokens": tokens, KEY + "token_type": types}
        expect_refused(
            place, lambda data=data: gguf_tokens.read_tokens(data, "gpt2"), part, f"tokens {tokens} of types {types}"
        )
    expect_refused(place, lambda: gguf_tokens.read_tokens({}, "gpt2"), "tokens", "no tokens")
    expect_equal(
        "text.llamacpp.tokens.read_scores", gguf_tokens.read_scores({KEY + "scores": [1, -0.5]}, 2), [1.0, -0.5], "scores"
    )
    for scores in ([1.0], [1.0, float("nan")], [1.0, "x"], None):
        expect_refused(
            "text.llamacpp.tokens.read_scores",
            lambda s=scores: gguf_tokens.read_scores({KEY + "scores": s}, 2),
            "scores",
            f"{scores}",
        )
    ids = numbered("a", "b", "ab", "a b")
    expect_equal(
        "text.llamacpp.tokens.read_merges",
        gguf_tokens.read_merges({KEY + "merges": ["a b", "b a"][:1]}, ids),
        {"a b": 0},
        "merges",
    )
    for merges in (["a b", "a b"], ["ab"], ["a  b"], [" ab"], ["ab "], ["b b"], ["a b", 1]):
        expect_refused(
            "text.llamacpp.tokens.read_merges",
            lambda m=merges: gguf_tokens.read_merges({KEY + "merges": m}, ids),
            "merge",
            f"{merges}",
        )
    expect_equal(
        "text.llamacpp.tokens.flag",
        [gguf_tokens.flag({KEY + "x": False}, "x", True), gguf_tokens.flag({}, "x", True)],
        [False, True],
        "flags",
    )
    expect_refused(
        "text.llamacpp.tokens.value", lambda: gguf_tokens.flag({KEY + "x": 1}, "x", True), "bool", "a number for a flag"
    )


@check("TOKN-012", "TOKN-043", "DETO-005", area="tokenization")
def scored_vocabularies_of_llama() -> None:
    place = "text.llamacpp.models.ScoredMerges"
    tokenizer = loaded(scored())
    for text, wanted in (
        ("abc", ["▁a", "bc"]),
        (" a", ["▁", "▁a"]),
        ("a  b", ["▁a", "▁▁", "b"]),
        ("é", ["▁", "<0xC3>", "<0xA9>"]),
        ("a\n", ["▁a", "<0x0A>"]),
        ("", []),
    ):
        expect_equal(place, spelled(tokenizer, text, add_special=False), wanted, f"pieces of {text!r}")
    bare = loaded(scored(add_space_prefix=False))
    expect_equal(place, spelled(bare, "abb", add_special=False), ["ab", "b"], "without a space before the text")
    get = tokenizer.token_to_id
    ids = [get("▁a"), get("<0xC3>"), get("<0xA9>"), get("▁"), get("<0xC3>"), get("b")]
    expect_equal("text.llamacpp.models.SpacedVocabulary", tokenizer.decode(ids), "aé \ufffdb", "text of ids")
    expect_equal(
        "text.llamacpp.models.SpacedVocabulary",
        tokenizer.decode([1, *ids[:1]]),
        "a",
        "BOS is left out before the space is dropped",
    )
    expect_equal("text.llamacpp.models.SpacedVocabulary", bare.decode(ids[:1]), " a", "a space that nobody put there")
    expect_equal(
        "text.llamacpp.models.SpacedVocabulary", tokenizer.decode([get("▁▁"), get("a")]), " a", "one space is dropped, not two"
    )
    lacking = gguf_models.ScoredMerges(["a"], {"a": 0}, [N], [0.0], prefix_space=False)
    expect_refused("text.llamacpp.models.SpacedVocabulary", lambda: lacking.encode("é"), "é", "a character without bytes")


@check("TOKN-020", "TOKN-044", area="tokenization")
def bos_and_eos_are_added_to_a_text() -> None:
    place = "text.llamacpp.vocabulary.load_gguf_tokenizer"
    tokenizer = loaded(scored())
    facts = tokenizer.bos_id, tokenizer.eos_id, set(tokenizer.special_ids), tokenizer.vocab_size
    expect_equal(place, facts, (1, 2, {0, 1, 2}, len(scored()[KEY + "tokens"])), "facts of a llama vocabulary")
    expect_equal(place, spelled(tokenizer, "a"), ["<s>", "▁a"], "a text with BOS")
    expect_equal(
        place, spelled(loaded(scored(add_bos_token=False, add_eos_token=True)), "a"), ["▁a", "</s>"], "a text with EOS"
    )
    expect_equal(
        place,
        spelled(tokenizer, "a</s>b", add_special=False, parse_special=True),
        ["▁a", "</s>", "▁", "b"],
        "a space after a special token",
    )
    expect_equal(place, "</s>" in spelled(tokenizer, "a</s>b", add_special=False), False, "a special token in a user's text")
    tokens = {"a": N, "b": N, "ab": N, "<u>": D, "<e>": C, "Ġ": N, "x": X}
    for pre, more, wanted in (
        ("gpt-2", {}, ["ab", "<u>", "a"]),
        ("llama-bpe", {"bos_token_id": 4}, ["<e>", "ab", "<u>", "a"]),
        ("llama-bpe", {"add_bos_token": False}, ["ab", "<u>", "a"]),
        ("gpt-2", {"add_bos_token": True, "bos_token_id": 4}, ["<e>", "ab", "<u>", "a"]),
        ("tekken", {"bos_token_id": 4, "add_eos_token": True, "eos_token_id": 4}, ["<e>", "ab", "<u>", "a", "<e>"]),
    ):
        with fresh():
            expect_equal(
                place, spelled(loaded(paired(tokens, ["a b"], pre=pre, **more)), "ab<u>a"), wanted, f"{pre} with {more}"
            )
    with fresh():
        digits = loaded(paired(dict.fromkeys(["1", "2", "3", "4", "12", "34", "1234"], N), ["1 2", "3 4", "12 34"], pre=None))
        expect_equal(place, spelled(digits, "1234"), ["12", "3", "4"], "a file that names no pre-tokenizer")
        bpe = loaded(paired(tokens, ["a b"]))
        expect_equal(place, bpe.encode("a\u00e9b"), [0, 1], "bytes without a token")
        expect_equal(place, bpe.decode([0, 6, 1]), "ab", "unused tokens have no text")
        expect_refused(
            place, lambda: loaded(paired(tokens, ["a b"], add_bos_token=True)), "bos_token_id", "BOS that is not named"
        )
        whole = loaded(paired({"a": N, "b": N, "c": N, "abc": N}, [], pre="llama-bpe", add_bos_token=False))
        expect_equal(place, whole.encode("abc"), [3], "a word that is a token")
    expect_equal(place, gguf_vocabulary.load_gguf_tokenizer({}), None, "a file without a tokenizer")
    expect_refused(place, lambda: gguf_vocabulary.load_gguf_tokenizer({KEY + "model": "rwkv"}), "rwkv", "an unknown kind")
    expect_equal(
        "text.llamacpp.vocabulary.gguf_end_ids", gguf_vocabulary.gguf_end_ids(scored()), (2,), "ids that end an answer"
    )
    expect_equal("text.llamacpp.vocabulary.gguf_end_ids", gguf_vocabulary.gguf_end_ids({}), (), "ends of no vocabulary")
    several = paired({"a": N, "<|im_end|>": C, "<|endoftext|>": C, "<e>": C}, [], eos_token_id=3, eot_token_id=0)
    expect_equal("text.llamacpp.vocabulary.gguf_end_ids", gguf_vocabulary.gguf_end_ids(several), (0, 1, 2, 3), "several ends")


@check("TOKN-045", area="tokenization")
def characters_merge_over_whole_lines_in_gemma_4() -> None:
    place = "text.llamacpp.models.CharacterBpe"
    tokens = {"a": N, "b": N, "▁": N, "ab": N, "a▁": N, "\n": N, "\n\n": N, "<bos>": C, "b▁a": N, "▁a": N, "<0xC3>": B}
    data = paired(tokens, ["▁ a", "b ▁a", "a b"], model="gemma4", pre=None, bos_token_id=7)
    tokenizer = loaded(data)
    for text, wanted in (
        ("ab ab", ["a", "b▁a", "b"]),
        ("ab\n\nab", ["ab", "\n\n", "ab"]),
        ("a\n\n\na", ["a", "\n", "\n", "\n", "a"]),
        ("aéb", ["a", "<0xC3>", "b"]),
    ):
        expect_equal(place, spelled(tokenizer, text), ["<bos>", *wanted], f"pieces of {text!r}")
    expect_equal(place, tokenizer.decode([0, 2, 10, 1]), "a \ufffdb", "text of ids")
    long = "ab" * 40
    expect_equal(place, spelled(tokenizer, long, add_special=False), ["ab"] * 40, "a long line")
    loose = gguf_models.CharacterBpe(list(tokens), numbered(*tokens), list(tokens.values()), {"a b": 0}, whole_lines=False)
    expect_equal(place, loose.encode("ab\n\nab"), [3, 5, 5, 3], "newlines one by one")


@check("TMPL-010", area="chat_template")
def templates_of_a_gguf_file() -> None:
    place, name = "text.llamacpp.vocabulary.load_gguf_template", "tokenizer.chat_template"
    expect_equal(place, gguf_vocabulary.load_gguf_template({}), None, "no template")
    data = {name: "d", f"{name}.tool_use": "t", f"{name}.rag": "r", "tokenizer.chat_templates": ["rag", "default"], **scored()}
    template = gguf_vocabulary.load_gguf_template(data)
    expect(place, template is not None, "no template was found")
    if template is not None:
        expect_equal(place, dict(template.sources), {"default": "d", "tool_use": "t", "rag": "r"}, "templates by name")
        expect_equal(
            place, template.special_tokens, {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}, "special tokens"
        )
    missing = {name: "d", "tokenizer.chat_templates": ["x"]}
    expect_refused(place, lambda: gguf_vocabulary.load_gguf_template(missing), "'x'", "a template that is listed and not there")
    kinds = {type_.name: int(type_) for type_ in PieceType}
    wanted = {"NORMAL": 1, "UNKNOWN": 2, "CONTROL": 3, "USER_DEFINED": 4, "UNUSED": 5, "BYTE": 6}
    expect_equal("text.sentencepiece.model.PieceType", kinds, wanted, "numbers of token types")
