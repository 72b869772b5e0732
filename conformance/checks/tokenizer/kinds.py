"""Folders without a tokenizer.json: merges, ranks, SentencePiece, each by the rules of its kind."""

# mypy: disable-error-code="assignment,misc"
# tables mix good and bad arguments

import base64
import itertools

import sentencepiece

from conformance.checks import check
from conformance.checks.assertions import expect_equal, expect_refused
from conformance.checks.tokenizer.files import MERGES_TXT, folder, spelled
from conformance.checks.tokenizer.models import PIECES, TEXTS, VOCAB, peer, proto
from conformance.fuzz.valid_checkpoint import LETTERS, TOKENIZER
from nanollama.text import tokenizer as own


@check("TOKN-056", "TOKN-003", area="tokenization")
def vocab_json_and_merges_make_gpt2_or_qwen2() -> None:
    place = "text.folder.vocabulary.open_merges"
    files = {"vocab__json": VOCAB, "merges__txt": MERGES_TXT}
    for config, name, ends in (
        ({"model_type": "gpt2"}, "gpt2", (None, None)),
        ({"model_type": "qwen3"}, "qwen2", (None, len(VOCAB))),
    ):
        with folder(**files, config__json=config) as path:
            tokenizer = own.load_tokenizer(path)
            for text in TEXTS:
                expect_equal(
                    place,
                    tokenizer.encode(text),
                    peer(name).encode(text.replace("a\u0301", "á") if name == "qwen2" else text).ids,
                    f"{text!r} by {name}",
                )
            expect_equal(place, (tokenizer.bos_id, tokenizer.eos_id), ends, f"ends of {name}")
    with folder(
        vocab__json={**VOCAB, "<|endoftext|>": 300},
        merges__txt=MERGES_TXT,
        tokenizer_config__json={"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True},
    ) as path:
        tokenizer = own.load_tokenizer(path)
        got = tokenizer.bos_id, tokenizer.eos_id, tokenizer.encode("w"), tokenizer.encode("<|endoftext|>", parse_special=True)
        expect_equal(place, got, (300, 300, [VOCAB["Ġw"]], [300]), "GPT-2 with its end of text and a space put before")
    for config, part in (({}, "tokenizer_class"), ({"model_type": "llama"}, "llama")):
        with folder(**files, config__json=config) as path:
            expect_refused("text.folder.vocabulary._merges_kind", lambda path=path: own.load_tokenizer(path), part, f"{config}")
    with folder(**files, tokenizer_config__json={"tokenizer_class": "BertTokenizer"}) as path:
        expect_refused(
            "text.folder.vocabulary._check_class", lambda: own.load_tokenizer(path), "BertTokenizer", "an unknown class"
        )


@check("TOKN-056", "TOKN-007", area="tokenization")
def a_tiktoken_file_is_llama_3() -> None:
    place = "text.folder.vocabulary.open_tiktoken"
    tokens = [bytes([b]) for b in range(256)] + [b"ab", b" ab", b"abc", b"12"]
    data = b"".join(base64.b64encode(t) + f" {i}\n".encode() for i, t in enumerate(tokens))
    with folder(tokenizer__model=data) as path:
        tokenizer = own.load_tokenizer(path)
        begin, end = len(tokens), len(tokens) + 1
        got = tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size, tokenizer.encode("abc ab123")
        expect_equal(place, got, (begin, end, len(tokens) + 256, [begin, 258, 257, 259, ord("3")]), "BOS, EOS, size and ids")
        names = {
            0: "<|begin_of_text|>",
            4: "<|finetune_right_pad_id|>",
            9: "<|eot_id|>",
            10: "<|python_tag|>",
            12: "<|reserved_special_token_2|>",
            255: "<|reserved_special_token_245|>",
        }
        expect_equal(place, {i: tokenizer.id_to_token(begin + i) for i in names}, names, "special tokens")
    with folder(
        tokenizer__model=data,
        tokenizer_config__json={"added_tokens_decoder": {"260": {"content": "<x>", "special": True}}, "bos_token": "<x>"},
    ) as path:
        tokenizer = own.load_tokenizer(path)
        expect_equal(
            place, (tokenizer.vocab_size, tokenizer.encode("a")), (261, [260, 97]), "declared tokens in place of Llama's"
        )
    with folder(tokenizer__model=data, config__json={"model_type": "gpt2"}) as path:
        expect_refused(place, lambda: own.load_tokenizer(path), "gpt2", "another model")
    with folder(tokenizer__model=data + base64.b64encode(b"xyz") + b" 900\n") as path:
        expect_refused(place, lambda: own.load_tokenizer(path), "gaps", "ranks with gaps")


@check("TOKN-033", "TOKN-034", "TOKN-055", area="tokenization")
def a_sentencepiece_file_gets_bos_and_its_special_tokens() -> None:
    place, raw = "text.folder.vocabulary.sentencepiece_vocabulary", proto("bpe", True)
    library = sentencepiece.SentencePieceProcessor(model_proto=raw)
    with folder(tokenizer__model=raw) as path:
        tokenizer = own.load_tokenizer(path)
        for words in itertools.product(("abc", "<w>", "é "), repeat=2):
            expect_equal(place, tokenizer.encode("".join(words)), [1, *library.encode("".join(words))], f"ids of {words}")
        expect_equal(
            place, (tokenizer.bos_id, tokenizer.eos_id, set(tokenizer.special_ids)), (1, 2, {1, 2}), "BOS, EOS and special ids"
        )
        expect_equal(
            place,
            spelled(tokenizer, "ab</s>ab", parse_special=True),
            ["<s>", "▁ab", "</s>", "ab"],
            "no space after a special token",
        )
        expect_equal(place, "</s>" in spelled(tokenizer, "ab</s>"), False, "a special token in a user's text")
        expect_equal(place, tokenizer.decode([1, *library.encode("ab é"), 2]), "ab é", "text of ids")
        got = tokenizer.decode([0]), tokenizer.decode([0], skip_special=False)
        expect_equal(place, got, (" ⁇ ", "<unk>"), "the unknown id")
    for config, wanted in (
        ({"legacy": True}, ["<s>", "▁ab", "</s>", "▁ab"]),
        ({"add_bos_token": False, "add_eos_token": True}, ["▁ab", "</s>", "ab", "</s>"]),
        ({"add_prefix_space": False}, ["<s>", "ab", "</s>", "ab"]),
    ):
        with folder(tokenizer__model=raw, tokenizer_config__json=config) as path:
            expect_equal(place, spelled(own.load_tokenizer(path), "ab</s>ab", parse_special=True), wanted, f"{config}")
    extra = {
        "added_tokens_decoder": {
            str(len(PIECES) + 256): {"content": "<x>", "special": True},
            "13": {"content": "<w>", "special": True},
        }
    }
    with folder(tokenizer__model=raw, tokenizer_config__json=extra) as path:
        tokenizer = own.load_tokenizer(path)
        expect_equal(place, tokenizer.encode("<x>", parse_special=True), [1, len(PIECES) + 256], "a token after the model's")
        got = (
            tokenizer.token_to_id("<w>") in tokenizer.special_ids,
            [tokenizer.token_to_id("<w>")] == tokenizer.encode("<w>", add_special=False),
        )
        expect_equal(place, got, (True, False), "a user-defined piece that became special")
    for bad in ({"10": {"content": "zz"}}, {"77": {"content": "abc"}}):
        with folder(tokenizer__model=raw, tokenizer_config__json={"added_tokens_decoder": bad}) as path:
            expect_refused(place, lambda path=path: own.load_tokenizer(path), next(iter(bad.values()))["content"], f"{bad}")
    with folder(tokenizer__model=raw, tokenizer_config__json={"extra_special_tokens": ["<none>"]}) as path:
        expect_refused(
            "text.folder.vocabulary._with_declared", lambda: own.load_tokenizer(path), "<none>", "a special token without an id"
        )
    with folder(README__md="x") as path:
        expect_refused(
            "text.folder.vocabulary.open_vocabulary",
            lambda: own.load_tokenizer(path),
            "no tokenizer",
            "a folder without a tokenizer",
        )
    with folder(tokenizer__json=TOKENIZER, tokenizer__model=raw) as path:
        expect_equal(
            "text.folder.vocabulary.open_vocabulary",
            own.load_tokenizer(path).vocab_size,
            len(LETTERS),
            "tokenizer.json comes before tokenizer.model",
        )
