"""The tokenizer fuzz: its strings are what they should be, its vocabularies open, and it sees a difference where one is."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from conformance.fuzz import tokenizer as fuzz_tokenizer
from conformance.fuzz.tokenizer import ODD_TOKENS, SCORED, differences, every_pair
from conformance.fuzz.tokenizer_strings import Strings
from nanollama.checkpoint.gguf.reader import read_gguf
from nanollama.text.llamacpp.vocabulary import CHARACTER_PRES, gguf_end_ids, load_gguf_tokenizer

CORPORA = ["the cat's 12 hats.\n" * 5]


class Answers:
    """What stands for llama.cpp here: our own tokenizer of a vocabulary with another pre-tokenizer."""

    def __init__(self, path: Path) -> None:
        metadata = read_gguf(path).metadata
        tokenizer = load_gguf_tokenizer(metadata)
        assert tokenizer is not None
        self._tokenizer, self.ends = tokenizer, list(gguf_end_ids(metadata))

    def ids(self, text: str) -> list[list[int]]:
        modes = (False, False), (False, True), (True, True)
        return [self._tokenizer.encode(text, add_special=around, parse_special=parse) for around, parse in modes]

    def pieces(self, ids: Sequence[int], special: bool) -> list[bytes]:
        return [self._tokenizer.decode(ids, skip_special=not special).encode("utf-8")]

    def close(self) -> None: ...


@pytest.mark.parametrize(("theirs", "differs"), [("llama3", False), ("qwen2", True), ("tekken", True), ("glm4", True)])
def test_a_difference_is_seen(theirs: str, differs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("llama3", theirs):
        every_pair(tmp_path / name, name)
    monkeypatch.setattr(fuzz_tokenizer, "LlamaCpp", lambda interpreter, path: Answers(tmp_path / theirs))
    assert bool(list(differences(tmp_path / "llama3", "", 50, 0, CORPORA))) is differs


@pytest.mark.parametrize("pre", ["gpt-2", *CHARACTER_PRES, *SCORED])
def test_a_vocabulary_of_pairs_opens(pre: str, tmp_path: Path) -> None:
    every_pair(tmp_path / "pairs", pre)
    tokenizer = load_gguf_tokenizer(read_gguf(tmp_path / "pairs").metadata)
    assert tokenizer is not None
    assert all(tokenizer.token_to_id(token) is not None for token in ODD_TOKENS)
    assert tokenizer.encode("[MASK]", add_special=False, parse_special=True) == [tokenizer.token_to_id("[MASK]")]


def test_the_strings_depend_on_the_seed_alone_and_spell_tokens_and_scripts() -> None:
    first, again, other = (Strings(seed, ["Ġtok"], ["<odd>"], CORPORA) for seed in (0, 0, 1))
    texts = [first.next() for _ in range(2000)]
    assert texts == [again.next() for _ in range(2000)]
    assert texts != [other.next() for _ in range(2000)]
    together = "".join(texts)
    assert together.encode("utf-8")
    for part in ("<odd>", " tok", "'ll", "\r\n", "\0", "\u0301", "👨\u200d👩", "𝟘", "cat's", "\u2028"):
        assert part in together
    assert len(set(together)) > 5_000


def test_the_fuzz_ends_when_llama_cpp_does(tmp_path: Path) -> None:
    every_pair(tmp_path / "pairs", "gpt-2")
    (tmp_path / "python").write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    (tmp_path / "python").chmod(0o700)
    with pytest.raises(SystemExit, match=r"llama\.cpp stopped \(code 3\) at its vocabulary"):
        fuzz_tokenizer.main([str(tmp_path / "pairs"), "--llamacpp", str(tmp_path / "python")])
