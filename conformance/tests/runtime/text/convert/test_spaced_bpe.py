"""Scores of a GGUF file and merges of a tokenizer.json, each made of the other, and spaces before text."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.fuzz.valid_vocabulary import KEY, scored
from conformance.tests.runtime.text.convert.test_text_export import exported, gguf_of, unpacked, warnings_of, write
from nanollama.errors import NanollamaError
from nanollama.text.bpe.merge import merge_pairs
from nanollama.text.convert.spaced_bpe import merges_of, scores_of
from nanollama.text.convert.text_files import folder_text
from nanollama.text.llamacpp.vocabulary import load_gguf_tokenizer
from nanollama.text.tokenizer import load_tokenizer


def test_scores_that_tie_have_no_merges_and_leave_the_tokenizer_model(tmp_path: Path) -> None:
    metadata = scored(scores=[-1000.0] * 268)
    assert set(folder_text(gguf_of(metadata))) == {"tokenizer.model", "tokenizer_config.json", "generation_config.json"}
    original, tokenizer = load_gguf_tokenizer(metadata), unpacked(tmp_path, metadata)
    assert original is not None and tokenizer.encode("abc ab<s>a", parse_special=True) == original.encode(
        "abc ab<s>a", parse_special=True
    )


def test_runs_of_spaces_may_tie() -> None:
    assert merges_of({"a": 0, "b": 0, "aa": -9, "aaaa": -9, "aaa": -9, "ab": -1}) is not None
    assert merges_of({"a": 0, "b": 0, "aa": -9, "aaa": -9, "aaaa": -9, "ab": -1}) is None  # 5 a: aaaa a, or aa aaa
    assert merges_of({"a": 0, "b": 0, "aa": -9, "aaa": -9, "aab": -9, "ab": -1}) is None


def test_merges_become_scores_only_if_they_are_ordered_by_what_they_make() -> None:
    tokens = {token: id for id, token in enumerate(["a", "b", "c", "ab", "bc", "abc"])}
    merges = [["b", "c"], ["a", "b"], ["a", "bc"], ["ab", "c"]]
    assert scores_of(tokens, merges) == {0: -3.0, 1: -3.0, 2: -3.0, 3: -1.0, 4: 0.0, 5: -2.0}
    with pytest.raises(NanollamaError, match=r"\('ab', 'c'\) never merge"):
        scores_of(tokens, merges[:-1])
    with pytest.raises(NanollamaError, match="that make 'abc' are not neighbours"):
        scores_of(tokens, [merges[2], *merges[:2], merges[3]])


def test_the_scores_of_a_tokenizer_model_are_kept_where_they_rank_as_the_merges_do(tmp_path: Path) -> None:
    metadata = scored()
    unpacked(tmp_path, metadata)
    assert exported(tmp_path, 268, [2])[0]["scores"] == metadata[KEY + "scores"]
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["merges"] = [["a", "b"], ["b", "c"], *content["model"]["merges"][2:]]
    write(tmp_path, tokenizer=content)
    keys, tokenizer = exported(tmp_path, 268, [2])
    assert keys["scores"][263:] == [0.0, -1.0, -2.0, -3.0, -4.0]
    assert tokenizer.encode("abc") == load_tokenizer(tmp_path).encode("abc") != [1, 265, 264]


def test_merges_that_are_no_scores_need_a_tokenizer_model(tmp_path: Path) -> None:
    unpacked(tmp_path, scored())
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["model"]["merges"].pop()
    write(tmp_path, tokenizer=content)
    assert exported(tmp_path, 268, [2])[0]["scores"][263:] == [-2.0, -1.0, -3.0, -4.0, -5.0]
    assert "no scores do what the merges" in warnings_of(tmp_path, 268, [2])
    (tmp_path / "tokenizer.model").unlink()
    with pytest.raises(NanollamaError, match=r"can't be written as the scores of a GGUF file: \('▁', '▁'\) never merge"):
        exported(tmp_path, 268, [2])


def test_metaspace_is_not_quite_what_llama_cpp_does(tmp_path: Path) -> None:
    unpacked(tmp_path, scored())
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    write(tmp_path, tokenizer={**content, "normalizer": None, "pre_tokenizer": space})
    keys, tokenizer = exported(tmp_path, 268, [2])
    assert keys["add_space_prefix"] is True and "Metaspace" in warnings_of(tmp_path, 268, [2])
    assert (tokenizer.encode(" a"), load_tokenizer(tmp_path).encode(" a")) == ([1, 259, 265], [1, 265])  # ▁ ▁a


def test_a_token_too_long_to_try_all_its_merges_is_refused() -> None:
    with pytest.raises(NanollamaError, match="has 1,025 letters; expected at most 1,024"):
        merges_of({"a" * 1025: 0.0})


@given(st.lists(st.text("abc", min_size=2, max_size=4), unique=True, max_size=12), st.text("abc", max_size=12))
@settings(max_examples=300)
def test_merges_join_what_scores_join_and_back(tokens: list[str], text: str) -> None:
    scores = {token: -float(place) for place, token in enumerate(["a", "b", "c", *tokens])}
    merges = merges_of(scores)
    assert merges is not None
    ranks = {pair: place for place, pair in enumerate(merges)}
    competing = any(a + b == b + c and a + b in scores for a, b in ranks for c in scores)  # `xx x` and `x xx`
    by_score = merge_pairs(list(text), lambda a, b: -scores[a + b] if a + b in scores else None)
    assert competing or merge_pairs(list(text), lambda a, b: ranks.get((a, b))) == by_score
    again = scores_of({token: id for id, token in enumerate(scores)}, merges)
    made = [token for token in scores if any(a + b == token for a, b in ranks)]
    assert sorted(made, key=lambda token: -again[[*scores].index(token)]) == made
