"""`load_tokenizer` on folders of each kind: ids against the peers, and the policy of BOS, EOS and special tokens."""

# mypy: disable-error-code="misc"
# tables mix good and bad arguments

import copy
from typing import Any

import tokenizers
from tokenizers import processors

from conformance.checks import check
from conformance.checks.assertions import expect_equal, expect_refused
from conformance.checks.generation.rigged import blamed
from conformance.checks.tokenizer.files import folder, spelled
from conformance.fuzz.valid_checkpoint import LETTERS, TOKENIZER
from nanollama.text import tokenizer as own
from nanollama.text.folder import tokenizer_json as libraries

LIBRARY = "text.folder.tokenizer_json.LibraryVocabulary"


def changed(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy({**TOKENIZER, **changes})


def around(before: list[str], after: list[str]) -> dict[str, Any]:
    """A post-processor of tokenizer.json."""
    items = [{"SpecialToken": {"id": token, "type_id": 0}} for token in before]
    items += [{"Sequence": {"id": "A", "type_id": 0}}, *({"SpecialToken": {"id": token, "type_id": 0}} for token in after)]
    tokens = {token: {"id": token, "ids": [LETTERS.index(token)], "tokens": [token]} for token in {*before, *after}}
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": items, "pair": pair, "special_tokens": tokens}


@check("TOKN-053", "TOKN-020", area="tokenization")
def a_tokenizer_json_gives_the_ids_of_the_library() -> None:
    with folder(tokenizer__json=TOKENIZER) as path, blamed(LIBRARY):
        tokenizer = own.load_tokenizer(path)
        theirs = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
        for text in ("ab cd", "ab<s>cd", "a<|end|>", "", "  ab"):
            theirs.encode_special_tokens = True
            expect_equal(LIBRARY, tokenizer.encode(text), theirs.encode(text).ids, f"ids of {text!r}")
            theirs.encode_special_tokens = False
            expect_equal(
                LIBRARY,
                tokenizer.encode(text, parse_special=True),
                theirs.encode(text).ids,
                f"ids of {text!r} with special tokens",
            )
        for ids in ([18, 1, 20, 999, 2], [], [17, 18]):
            for skip in (True, False):
                wanted = theirs.decode([i for i in ids if i < 999], skip_special_tokens=skip)
                expect_equal(LIBRARY, tokenizer.decode(ids, skip_special=skip), wanted, f"text of {ids}, skip_special {skip}")
        facts = (
            tokenizer.vocab_size,
            set(tokenizer.special_ids),
            tokenizer.token_to_id("ab"),
            tokenizer.token_to_id("zz"),
            tokenizer.id_to_token(18),
        )
        expect_equal(LIBRARY, facts, (len(LETTERS), {0, 1, 2, 3}, LETTERS.index("ab"), None, LETTERS[18]), "facts")
    shortened = changed(truncation={"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0})
    shortened["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<unk>",
    }
    with folder(tokenizer__json=shortened) as path:
        expect_equal(
            LIBRARY, spelled(own.load_tokenizer(path), "abcd"), ["ab", "cd"], "truncation and padding are switched off"
        )
    for bad in ("{}", "[", '{"model": 3}'):
        with folder(tokenizer__json=bad) as path:
            expect_refused(LIBRARY, lambda path=path: own.load_tokenizer(path), "tokenizer.json", f"{bad}")


@check("TOKN-054", "TOKN-055", area="tokenization")
def bos_and_eos_are_put_where_the_files_ask() -> None:
    place = "text.tokenizer.load_tokenizer"
    bos, eos = {"bos_token": "<s>"}, {"eos_token": "</s>"}
    for post, config, wanted in (
        (None, {}, (None, None, ["ab"])),
        (None, {**bos, **eos}, (1, 2, ["ab"])),
        (None, {**bos, "add_bos_token": True}, (1, None, ["<s>", "ab"])),
        (None, {**bos, **eos, "add_eos_token": True}, (1, 2, ["ab", "</s>"])),
        (around(["<s>"], []), {}, (1, None, ["<s>", "ab"])),
        (around(["<s>"], ["</s>"]), {}, (1, 2, ["<s>", "ab", "</s>"])),
        (around(["<|end|>", "<s>"], []), {**bos, "add_eos_token": True, **eos}, (1, 2, ["<|end|>", "<s>", "ab"])),
        (around(["<s>"], []), {"bos_token": None}, (None, None, ["<s>", "ab"])),
    ):
        with folder(tokenizer__json=changed(post_processor=post), tokenizer_config__json=config) as path:
            tokenizer = own.load_tokenizer(path)
            expect_equal(
                place,
                (tokenizer.bos_id, tokenizer.eos_id, spelled(tokenizer, "ab")),
                wanted,
                f"{config}, post-processor {post is not None}",
            )
    with folder(tokenizer__json=TOKENIZER, config__json={"bos_token_id": 1, "eos_token_id": [3, 2]}) as path:
        tokenizer = own.load_tokenizer(path)
        expect_equal(place, (tokenizer.bos_id, tokenizer.eos_id), (1, 3), "ids that the config names")
    for name, bad, part in (
        ("tokenizer_config__json", {"bos_token": "zz"}, "zz"),
        ("tokenizer_config__json", {"add_bos_token": True}, "add_bos_token"),
        ("config__json", {"eos_token_id": 999}, "999"),
    ):
        with folder(**{"tokenizer__json": TOKENIZER, name: bad}) as path:
            expect_refused(place, lambda path=path: own.load_tokenizer(path), part, f"{bad}")
    template: Any = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    library = tokenizers.Tokenizer.from_str(__import__("json").dumps(TOKENIZER))
    library.post_processor = processors.Sequence(
        [processors.ByteLevel(), template, processors.BertProcessing(("x", 9), ("y", 8))]
    )
    expect_equal(
        "text.folder.tokenizer_json.template_ids", libraries.template_ids(library), ([8, 1], [2, 9]), "processors in a sequence"
    )


@check("TOKN-052", "TOKN-022", area="tokenization")
def tokens_declared_next_to_a_tokenizer_json_count() -> None:
    added = {
        "added_tokens_decoder": {
            str(len(LETTERS)): {"content": "<new>", "special": True},
            str(len(LETTERS) + 1): {"content": "<w>", "rstrip": True},
        }
    }
    with (
        folder(tokenizer__json=TOKENIZER, tokenizer_config__json={**added, "extra_special_tokens": ["cd"]}) as path,
        blamed(LIBRARY),
    ):
        tokenizer = own.load_tokenizer(path)
        expect_equal(LIBRARY, spelled(tokenizer, "ab<new>", parse_special=True), ["ab", "<new>"], "a new special token")
        expect_equal(LIBRARY, "<new>" in spelled(tokenizer, "ab<new>"), False, "a new special token in a user's text")
        expect_equal(
            LIBRARY,
            spelled(tokenizer, "ab<w> cd"),
            ["ab", "<w>", "cd"],
            "a new token that is not special, and one that became it",
        )
        expect_equal(LIBRARY, set(tokenizer.special_ids), {0, 1, 2, 3, len(LETTERS), LETTERS.index("cd")}, "special ids")
        expect_equal(LIBRARY, tokenizer.vocab_size, len(LETTERS) + 2, "the size")
    with folder(
        tokenizer__json=TOKENIZER, tokenizer_config__json={"added_tokens_decoder": {"99": {"content": "<new>"}}}
    ) as path:
        expect_refused(LIBRARY, lambda: own.load_tokenizer(path), "99", "a token with an id that it can't get")
