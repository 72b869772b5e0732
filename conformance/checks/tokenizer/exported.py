"""Tokenizers of a folder as keys of a GGUF file, by hand: tokens, types, merges, scores, roles, templates, refusals."""

import functools
import json
from collections.abc import Mapping
from typing import Any

from sentencepiece import sentencepiece_model_pb2 as proto

from conformance.checks import check
from conformance.checks.assertions import expect, expect_equal, expect_refused
from conformance.checks.tokenizer.folder_keys import (
    BYTE_LEVEL,
    LETTERS,
    base64_line,
    byte_level,
    config_of,
    files_of,
    folder_of,
    keys_of,
    parse,
    same_keys,
    there_and_back,
)
from conformance.fuzz.valid_vocabulary import KEY, scored
from nanollama.checkpoint.gguf.values import ARRAY, STRING, ValueType
from nanollama.text.convert.text_files import gguf_text


@check("TOKN-058", "TOKN-040", area="tokenization")
def a_byte_level_folder_becomes_tokens_types_and_merges() -> None:
    config = {"eos_token": "<end>", "pad_token": "<end>", "chat_template": "{{ 1 }}\n"}
    got, _ = keys_of({"tokenizer.json": byte_level(), "tokenizer_config.json": config}, 101)
    want = {
        **{"model": "gpt2", "pre": "gpt-2", "merges": ["a b", "Ġ ab"]},
        "tokens": [*LETTERS, "ab", "Ġab", "<end>", "<think>", "[PAD99]", "[PAD100]"],
        "token_type": [1] * 97 + [3, 4, 5, 5],
        **{"add_bos_token": False, "add_eos_token": False, "eos_token_id": 97, "padding_token_id": 97},
        "tokenizer.chat_template": "{{ 1 }}\n",
    }
    same_keys(got, want)
    got, _ = keys_of({"tokenizer.json": byte_level(), "tokenizer_config.json": {"eos_token": "<end>"}}, 99)
    expect_equal("text.convert.to_gguf.token_keys", got["token_type"][97:], [3, 4], "the types of <end> and <think>")
    for merges in ([["a", "b"]], []):
        changed = byte_level(model={"merges": merges})
        with folder_of({"tokenizer.json": changed, "tokenizer_config.json": config}) as folder:
            types = gguf_text(folder, config_of(99), ()).types
            expect_equal(
                "text.convert.to_gguf.folder_metadata", types, {KEY + "merges": ValueType(ARRAY, STRING)}, "types of keys"
            )
    around = {"type": "BertProcessing", "sep": ["<end>", 97], "cls": ["<think>", 98]}
    got, _ = keys_of({"tokenizer.json": byte_level(post_processor=around)}, 99)
    flags = [got.get(key) for key in ("add_bos_token", "add_eos_token", "bos_token_id", "eos_token_id")]
    expect_equal("text.convert.to_gguf.around_keys", flags, [True, True, 98, 97], "BOS and EOS of a post-processor")


@check("TOKN-058", "EOSX-001", area="tokenization")
def end_ids_and_templates_come_along() -> None:
    config: dict[str, Any] = {"eos_token": "<end>"}
    files = {"tokenizer.json": byte_level(), "tokenizer_config.json": config}
    for ends, want in (
        ([97], (97, None, None)),
        ([97, 5], (97, 5, None)),
        ([98, 97, 5], (97, 98, 5)),
        ([97, 500], (97, None, None)),
    ):
        got, _ = keys_of(files, 99, ends)
        named = tuple(got.get(key) for key in ("eos_token_id", "eot_token_id", "eom_token_id"))
        expect_equal("text.convert.to_gguf.add_end_ids", named, want, f"the ids that end, of {ends}")
    expect_refused(
        "text.convert.to_gguf.add_end_ids", lambda: keys_raised(files, 99, [97, 5, 98, 6]), "[5, 98, 6]", "a fourth end id"
    )
    got, notices = keys_of({"tokenizer.json": byte_level()}, 99, [5, 6])
    expect_equal("text.convert.to_gguf.role_ids", got.get("eos_token_id"), 5, "the end id where only the config names one")
    expect_equal("text.convert.to_gguf.role_ids", "no token that ends" in notices, False, "a notice")
    got, notices = keys_of({"tokenizer.json": byte_level()}, 99)
    expect_equal(
        "text.convert.to_gguf.role_ids", ("eos_token_id" in got, "no token that ends" in notices), (False, True), "no end"
    )
    texts = {"default": "{{ 'é' }}\r\n", "tool_use": " {{ x }}", "rag": ""}
    config["chat_template"] = [{"name": name, "template": text} for name, text in texts.items()]
    got, _ = keys_of(files, 99)
    expect_equal(
        "text.convert.to_gguf.template_keys", got.get("tokenizer.chat_templates"), ["tool_use", "rag"], "names of templates"
    )
    written = {key.partition("chat_template")[2]: value for key, value in got.items() if "chat_template" in key}
    expect_equal(
        "text.convert.to_gguf.template_keys",
        written,
        {"": "{{ 'é' }}\r\n", "s": ["tool_use", "rag"], ".tool_use": " {{ x }}", ".rag": ""},
    )
    same_keys(keys_of({}, 8)[0], {"model": "none"})


def keys_raised(files: Mapping[str, Any], rows: int, ends: list[int] | None = None) -> None:
    """The same, with errors of the runtime passed on."""
    with folder_of(files) as folder:
        gguf_text(folder, config_of(rows), ends or ())


@check("TOKN-058", "TOKN-016", area="tokenization")
def unsupported_settings_are_refused_or_noticed() -> None:
    model = "text.convert.to_gguf_model"
    for changes, place, part in (
        ({"pre_tokenizer": {"type": "Whitespace"}}, "text.convert.pretokenizer_names", "ByteLevel"),
        ({"pre_tokenizer": BYTE_LEVEL | {"add_prefix_space": True}}, "text.convert.pretokenizer_names", "add_prefix_space"),
        ({"normalizer": {"type": "Lowercase"}}, f"{model}.composes_text", "Lowercase"),
        (
            {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "NFD"}]}},
            f"{model}.composes_text",
            "NFD",
        ),
        ({"model": {"dropout": 0.1}}, f"{model}.from_tokenizer_json", "dropout"),
        ({"model": {"end_of_word_suffix": "x"}}, f"{model}.from_tokenizer_json", "end_of_word_suffix"),
        ({"model": {"type": "WordLevel", "unk_token": "a"}}, f"{model}.from_tokenizer_json", "WordLevel"),
    ):
        files = {"tokenizer.json": byte_level(**changes)}
        expect_refused(place, functools.partial(keys_raised, files, 99, [97]), part, f"a tokenizer.json with {changes}")
    plain = {"tokenizer.json": byte_level()}
    expect_refused("text.convert.to_gguf.token_keys", lambda: keys_raised(plain, 98, [97]), "98 rows", "more ids than rows")
    around = {"type": "BertProcessing", "sep": ["<end>", 97], "cls": ["<think>", 98]}
    odd = {"tokenizer.json": byte_level(post_processor=around), "tokenizer_config.json": {"bos_token": "<end>"}}
    expect_refused(
        "text.convert.to_gguf.around_keys", lambda: keys_raised(odd, 99), "[98]", "another token than BOS before every text"
    )
    nfc = {"tokenizer.json": byte_level(normalizer={"type": "NFC"})}
    mask = {"added_tokens_decoder": {"99": {"content": "<mask>", "lstrip": True, "special": True}}}
    for more, place, part in (
        (nfc, f"{model}.from_byte_level", "composes text"),
        ({"tokenizer_config.json": mask}, "text.convert.to_gguf.side_warnings", "1 special tokens, '<mask>'"),
    ):
        notices = keys_of({**plain, **more}, 100, [97])[1]
        expect(place, part in notices, f"no notice: {notices!r} has no {part!r}")
    expect_equal(f"{model}", keys_of(plain, 99, [97])[1], "", "the notices about a folder that fits")


@check("TOKN-058", "TOKN-050", area="tokenization")
def ranks_and_merges_files_become_merges() -> None:
    vocab = {token: id for id, token in enumerate([*LETTERS, "ab", "Ġab"])}
    merges = "#version: 0.2\na b\nĠ ab\n".encode()
    for kind, pre in (("gpt2", "gpt-2"), ("qwen2", "qwen2")):
        files = {"vocab.json": vocab, "merges.txt": merges, "config.json": {"model_type": kind}}
        got, notices = keys_of(files, 98, [5])
        expect_equal(
            "text.convert.to_gguf_model.from_merges",
            (got["model"], got["pre"], got["merges"]),
            ("gpt2", pre, ["a b", "Ġ ab"]),
            kind,
        )
        expect("text.convert.to_gguf_model.from_merges", ("NFC" in notices) == (kind == "qwen2"), f"{kind}: {notices!r}")
    spaced = {**files, "tokenizer_config.json": {"add_prefix_space": True}}
    expect_refused(
        "text.convert.to_gguf_model.from_merges",
        lambda: keys_raised(spaced, 98, [5]),
        "add_prefix_space",
        "a space before texts",
    )
    from nanollama.text.convert.to_gguf_model import from_tiktoken

    ranks = [bytes([byte]) for byte in range(256)] + [b"bc", b"ab", b"abc", b"ca", b"abca"]
    lines = b"".join(base64_line(token, rank) for rank, token in enumerate(ranks))
    made = from_tiktoken(lines)
    want = ["b c", "a b", "a bc", "ab c", "c a", "ab ca", "abc a"]  # by the merged token, then by the rank of the left part
    expect_equal(
        "text.convert.to_gguf_model.from_tiktoken",
        (made.keys["merges"], made.keys["pre"]),
        (want, "llama-bpe"),
        "merges of ranks",
    )


@check("TOKN-058", "TOKN-012", area="tokenization")
def a_sentencepiece_folder_becomes_tokens_types_and_scores() -> None:
    metadata = scored(bos_token_id=1, eos_token_id=2, add_bos_token=True, add_eos_token=False, unknown_token_id=0)
    files = {name: content for name, content in files_of(metadata).items() if name != "tokenizer.json"}
    got, notices = keys_of(files, 270, [2])
    want = {key.removeprefix(KEY): value for key, value in metadata.items()}
    want["tokens"] = [*want["tokens"], "[PAD268]", "[PAD269]"]
    want["token_type"], want["scores"] = [*want["token_type"], 5, 5], [*want["scores"], -10000.0, -10000.0]
    want |= {"pre": "default", "add_space_prefix": True, "remove_extra_whitespaces": False}
    same_keys(got, want)
    expect_equal("text.convert.to_gguf_model.from_sentencepiece", notices, "", "the notices")
    model: Any = proto.ModelProto()  # type: ignore[attr-defined]
    for change, part in (
        (lambda m: setattr(m.trainer_spec, "model_type", 1), "unigram"),
        (lambda m: setattr(m.trainer_spec, "treat_whitespace_as_suffix", True), "whitespace_as_suffix True"),
        (lambda m: setattr(m.normalizer_spec, "escape_whitespaces", False), "escape_whitespaces False"),
    ):
        parse(model, files["tokenizer.model"])
        change(model)
        other = {**files, "tokenizer.model": model.SerializeToString()}
        expect_refused(
            "text.convert.to_gguf_model.from_sentencepiece", functools.partial(keys_raised, other, 270, [2]), part, part
        )
    parse(model, files["tokenizer.model"])
    model.normalizer_spec.remove_extra_whitespaces = True
    got, notices = keys_of({**files, "tokenizer.model": model.SerializeToString()}, 270, [2])
    expect_equal(
        "text.convert.to_gguf_model.from_sentencepiece", got.get("remove_extra_whitespaces"), True, "remove_extra_whitespaces"
    )
    expect("text.convert.to_gguf_model.from_sentencepiece", "spaces" in notices, "no notice about removed spaces")


@check("TOKN-058", "TOKN-012", area="tokenization")
def a_spaced_tokenizer_json_becomes_tokens_types_and_scores() -> None:
    metadata = scored(bos_token_id=1, eos_token_id=2, add_bos_token=True, add_eos_token=False, unknown_token_id=0)
    files = files_of(metadata)
    there_and_back("text.convert.to_gguf_model.from_spaced", files, 270, [2])
    own = json.loads(files["tokenizer.json"])
    named = {"tokenizer.json": own, "tokenizer_config.json": {"eos_token": "</s>", "bos_token": "<s>"}}
    got, _ = keys_of({**named, "tokenizer.model": files["tokenizer.model"]}, 268, [2])
    expect_equal(
        "text.convert.to_gguf_model.tokenizer_model_scores",
        got["scores"][263:],
        [-2.0, -1.0, -3.0, -4.0, -5.0],
        "scores of the tokenizer.model beside",
    )
    own["model"]["merges"].reverse()
    got, _ = keys_of({**named, "tokenizer.model": files["tokenizer.model"]}, 268, [2])
    ranked = sorted(range(263, 268), key=lambda id: -got["scores"][id])
    expect_equal(
        "text.convert.to_gguf_model.merge_scores",
        ranked[0],
        267,
        "the best piece where the merges have another order than the model",
    )
    own["model"]["merges"].reverse()
    got, _ = keys_of(named, 268, [2])
    ranked = sorted(range(263, 268), key=lambda id: -got["scores"][id])
    expect_equal(
        "text.convert.to_gguf_model.merge_scores", ranked, [264, 263, 265, 266, 267], "pieces by the scores that merges become"
    )
    expect_equal(
        "text.convert.to_gguf_model.from_spaced", got["token_type"][:5], [2, 3, 3, 6, 6], "types of a spaced tokenizer.json"
    )
