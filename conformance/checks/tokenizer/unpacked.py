"""The vocabulary of a GGUF file as files of a folder: by hand, and as tokenizers and sentencepiece read them."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import tokenizers
from sentencepiece import sentencepiece_model_pb2 as proto

from conformance.checks import check
from conformance.checks.assertions import at, expect, expect_equal, expect_refused
from conformance.checks.tokenizer.folder_keys import (
    LETTERS,
    SIDES,
    byte_level,
    config_of,
    files_of,
    folder_of,
    parse,
    there_and_back,
)
from conformance.fuzz.valid_vocabulary import KEY, C, D, N, X, paired, scored
from nanollama.checkpoint.gguf.reader import GGUF
from nanollama.checkpoint.gguf.values import ARRAY, STRING, UINT32, ValueType
from nanollama.text.convert.text_files import folder_text, gguf_text


@check("TOKN-059", "TOKN-053", area="tokenization")
def a_byte_level_vocabulary_becomes_a_tokenizer_json() -> None:
    tokens = {**dict.fromkeys([*LETTERS, "ab", "Ġab"], N), "<end>": C, "<think>": D, "[PAD99]": X, "ab€": N}
    keys = {"eos_token_id": 97, "bos_token_id": 97, "add_bos_token": True, "add_eos_token": False, "padding_token_id": 1}
    metadata = paired(tokens, ["a b", "Ġ ab", "ab €"], pre="qwen2", **keys) | {"tokenizer.chat_template": "{{ 1 }}"}
    files = files_of(metadata)
    expect_equal(
        "text.convert.to_folder.folder_files",
        sorted(files),
        ["generation_config.json", "tokenizer.json", "tokenizer_config.json"],
    )
    content = json.loads(files["tokenizer.json"])
    model, part = content["model"], "text.convert.tokenizer_json_writer"
    expect_equal(f"{part}.used", sorted(model["vocab"].values()), [*range(99), 100], "ids")
    expect_equal(
        f"{part}.byte_level_json", model["merges"], [["a", "b"], ["Ġ", "ab"]], "merges whose parts and result are tokens"
    )
    expect_equal(
        f"{part}.bpe", (model["ignore_merges"], model["byte_fallback"], model["unk_token"]), (False, False, None), "flags"
    )
    added = [
        {"id": id, "content": text, **SIDES, "special": special}
        for id, text, special in ((97, "<end>", True), (98, "<think>", False))
    ]
    expect_equal(f"{part}.described", content["added_tokens"], added, "added tokens")
    read = tokenizers.Tokenizer.from_buffer(files["tokenizer.json"])
    for text, ids in (("ab ab", [97, 95, 96]), ("<think>ab", [97, 98, 95]), ("12", [97, 16, 17]), ("", [97])):
        expect_equal(
            f"{part}.around" if not text else f"{part}.byte_level_json",
            read.encode(text).ids,
            ids,
            f"ids of {text!r} in the library",
        )
    expect_equal(f"{part}.around", read.encode("a", "b").ids, [97, 64, 65], "ids of a pair in the library")
    expect_equal(f"{part}.byte_level_json", read.decode([95, 96]), "ab ab", "text in the library")
    config = json.loads(files["tokenizer_config.json"])
    want = {
        **{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<end>", "eos_token": "<end>"},
        **{"add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False},
        "added_tokens_decoder": {
            "97": {"content": "<end>", **SIDES, "special": True},
            "98": {"content": "<think>", **SIDES, "special": False},
        },
        "chat_template": "{{ 1 }}",
    }
    expect_equal("text.convert.to_folder.tokenizer_config", config, want, "tokenizer_config.json")
    generation = json.loads(files["generation_config.json"])
    expect_equal(
        "text.convert.to_folder.generation_config",
        generation,
        {"bos_token_id": 97, "eos_token_id": [97]},
        "generation_config.json",
    )
    ends = json.loads(files_of(metadata | {KEY + "eot_token_id": 5})["generation_config.json"])["eos_token_id"]
    expect_equal("text.convert.to_folder.generation_config", ends, [97, 5], "ids that end, the usual one first")
    several = metadata | {"tokenizer.chat_templates": ["rag"], "tokenizer.chat_template.rag": "é"}
    templates = json.loads(files_of(several)["tokenizer_config.json"])["chat_template"]
    both = [{"name": "default", "template": "{{ 1 }}"}, {"name": "rag", "template": "é"}]
    expect_equal("text.convert.to_folder.template_of", sorted(templates, key=lambda each: each["name"]), both, "templates")
    expect(
        "text.convert.to_folder.written",
        "é".encode() in files_of(several)["tokenizer_config.json"],
        "é is written as an escape",
    )
    expect_equal("text.convert.to_folder.folder_files", files_of({KEY + "model": "none"}), {}, "files of no vocabulary")
    expect_refused(
        "text.convert.to_folder.folder_files", raising(lambda: metadata | {KEY + "model": "bert"}), "bert", "another kind"
    )
    whole = {"tokenizer.json": byte_level(), "tokenizer_config.json": {"eos_token": "<end>", "chat_template": "x"}}
    there_and_back("text.convert.to_folder.folder_files", whole, 101, [97])


def raising(metadata: Callable[[], Mapping[str, Any]]) -> Callable[[], object]:
    """Files of a vocabulary, with errors of the runtime passed on."""
    return lambda: folder_text(GGUF(dict(metadata()), {}, {}))


@check("TOKN-059", "TOKN-051", area="tokenization")
def a_scored_vocabulary_becomes_a_sentencepiece_file() -> None:
    place, writer = "text.convert.to_folder.sentencepiece_of", "text.sentencepiece.writer"
    metadata = scored(add_space_prefix=False, bos_token_id=1, eos_token_id=2, padding_token_id=0, add_eos_token=True)
    for name, value in (("tokens", ["<x>", "  "]), ("token_type", [int(D), int(D)]), ("scores", [0.0, 0.0])):
        metadata[KEY + name] = [*metadata[KEY + name], *value]
    files = files_of(metadata)
    model: Any = proto.ModelProto()  # type: ignore[attr-defined]
    with at(f"{writer}.sentencepiece_bytes"):
        parse(model, files["tokenizer.model"])
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    expect_equal(
        f"{writer}.sentencepiece_bytes",
        pieces,
        list(zip(metadata[KEY + "tokens"], metadata[KEY + "scores"], strict=True)),
        "pieces",
    )
    types = [piece.type for piece in model.pieces]
    expect_equal(
        place, types, [2, 3, 3, *[6] * 256, *[1] * 9, 3, 3], "types: what is looked for in the text is a control piece"
    )
    trained = model.trainer_spec
    ids = (trained.unk_id, trained.bos_id, trained.eos_id, trained.pad_id, trained.vocab_size, trained.model_type)
    expect_equal(f"{writer}.trainer", ids, (0, 1, 2, 0, 270, 2), "ids of unk, bos, eos and pad, size and kind (2: BPE)")
    names = (trained.unk_piece, trained.bos_piece, trained.eos_piece, trained.pad_piece, trained.unk_surface)
    expect_equal(f"{writer}.trainer", names, ("<unk>", "<s>", "</s>", "<unk>", ""), "pieces with a role")
    expect_equal(
        f"{writer}.trainer", (trained.byte_fallback, trained.treat_whitespace_as_suffix), (True, False), "flags of the trainer"
    )
    rules = model.normalizer_spec
    flags = (
        rules.name,
        rules.precompiled_charsmap,
        rules.add_dummy_prefix,
        rules.remove_extra_whitespaces,
        rules.escape_whitespaces,
    )
    expect_equal(f"{writer}.normalizer", flags, ("identity", b"", False, False, True), "the normalizer")
    parse(model, files_of(scored(bos_token_id=None))["tokenizer.model"])
    expect_equal(
        f"{writer}.trainer", (model.trainer_spec.pad_id, model.normalizer_spec.add_dummy_prefix), (-1, True), "no pad; a space"
    )
    scored_json = json.loads(files["tokenizer.json"])
    expect_equal(
        "text.convert.tokenizer_json_writer.spaced_json", scored_json["model"]["unk_token"], "<unk>", "the unknown token"
    )
    read = tokenizers.Tokenizer.from_buffer(files["tokenizer.json"])
    for text, want in (("abc", [266]), ("a bc", [260, 259, 264]), ("é", [198, 172]), ("a<x>a", [260, 268, 260]), ("", [])):
        expect_equal(
            "text.convert.tokenizer_json_writer.spaced_json",
            read.encode(text).ids,
            [1, *want, 2],
            f"ids of {text!r} in the library",
        )
    expect_equal("text.convert.tokenizer_json_writer.spaced_json", read.decode([260, 198, 172]), "aé", "text in the library")
    spaced = tokenizers.Tokenizer.from_buffer(files_of(scored())["tokenizer.json"])
    expect_equal(
        "text.convert.tokenizer_json_writer.spaced_json", spaced.encode("abc").ids[-2:], [265, 264], "with a space put first"
    )
    expect_equal(
        "text.convert.tokenizer_json_writer.spaced_json", spaced.decode([265, 263]), "aab", "its space is taken off again"
    )


@check("TOKN-059", "TOKN-058", area="tokenization")
def from_a_form_to_the_same_form_all_is_copied() -> None:
    values = {"general.name": "x", "tokenizer.ggml.scores": [1.0], "tokenizer.huggingface.json": "{"}
    types = {"general.name": ValueType(STRING), "tokenizer.ggml.scores": ValueType(ARRAY, UINT32)}
    kept = {"tokenizer.ggml.scores": [1.0], "tokenizer.huggingface.json": "{"}
    expect_equal(
        "text.convert.text_files.gguf_text",
        tuple(gguf_text(GGUF(values, {}, types), config_of(512), ())),
        (kept, {"tokenizer.ggml.scores": ValueType(ARRAY, UINT32)}, ()),
        "keys, types and warnings",
    )
    texts = {
        "merges.txt": b"#\r\n\xff",
        "tokenizer.model": b"\0",
        "additional_chat_templates/rag.jinja": b"{{",
        "generation_config.json": b"{",
    }
    others = {"config.json": b"{}", "README.md": b"?", "model.safetensors": b""}
    with folder_of({**texts, **others}) as folder:
        expect_equal("text.convert.text_files.folder_text", folder_text(folder), texts, "files")
