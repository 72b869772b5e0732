"""Compare the tokenizers in GGUF files with llama.cpp's, on random strings: `python -m conformance.fuzz.tokenizer FILE…`.

Every string is encoded without and with special tokens parsed, and with BOS and EOS; ids must be equal, and so must the
text that they decode to and the ids that end an answer. --pre tests pre-tokenizers on a vocabulary that merges every
two bytes, where nearly every difference in splitting a text into words changes the ids.

No character is left out: characters newer than Unicode 15.1, which llama.cpp knows, are handled by text/llamacpp/codepoints.py.
"""

import argparse
import contextlib
import json
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gguf

from conformance import ROOT
from conformance.fuzz.tokenizer_strings import Strings
from nanollama.checkpoint.gguf.reader import read_gguf
from nanollama.text.bpe.byte_level import BYTE_TO_LETTER
from nanollama.text.llamacpp.pretokenizers import PRE_TOKENIZERS
from nanollama.text.llamacpp.vocabulary import CHARACTER_PRES, gguf_end_ids, load_gguf_tokenizer
from nanollama.text.tokenizer import Tokenizer

ORACLE = Path(__file__).parents[1] / "truth" / "peers" / "llamacpp_tokens.py"
SHOWN = 10  # differences per vocabulary
STACK = 2**30  # std::regex recurses once per character


class LlamaCpp:
    """llama.cpp in another process, with one vocabulary open."""

    def __init__(self, interpreter: str, path: Path) -> None:
        def more_stack() -> None:
            _, hard = resource.getrlimit(resource.RLIMIT_STACK)
            resource.setrlimit(resource.RLIMIT_STACK, (STACK if hard == resource.RLIM_INFINITY else hard, hard))

        self._process = subprocess.Popen(
            [interpreter, str(ORACLE), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=more_stack,
        )
        about = self._answer("its vocabulary")
        self.ends: list[int] = about["ends"]
        self._pieces = [[bytes.fromhex(piece) for piece in both] for both in about["pieces"]]

    def ids(self, text: str) -> list[list[int]]:
        """The ids without and with special tokens parsed, and with BOS and EOS."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has stopped and will not answer
            self._process.stdin.write(json.dumps(text) + "\n")
            self._process.stdin.flush()
        answer: list[list[int]] = self._answer(repr(text))
        return answer

    def _answer(self, what: str) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise SystemExit(f"llama.cpp stopped (code {self._process.returncode}) at {what:.300}")
        return json.loads(line)

    def pieces(self, ids: Sequence[int], special: bool) -> list[bytes]:
        """The bytes of each id, b"" for special tokens unless they are spelled."""
        return [self._pieces[id][special] for id in ids]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


NAMES = {"modern-bert": "modern-bert", "mpt": "Phi-3"}
"""`general.name` of the vocabularies of these pre-tokenizers: llama.cpp has rules for white space that go by it."""
SCORED = {"llama": True, "llama-bare": False}
"""Not pre-tokenizers, but pairs with scores (`tokenizer.ggml.model` "llama"), with and without `add_space_prefix`."""
LETTERS = "\n▁" + "".join(chr(code) for code in range(0x21, 0x7F)) + "éÉßж我一가👍\u0301\u3000"
ODD_TOKENS = {  # found in text, or special in llama.cpp whatever their type
    "<|bos|>": gguf.TokenType.CONTROL,
    **dict.fromkeys(("<unk>", "<s>", "</s>", "<|endoftext|>"), gguf.TokenType.CONTROL),  # required for Phi-3
    "<mask>": gguf.TokenType.CONTROL,
    "[MASK]": gguf.TokenType.CONTROL,
    "<|im_end|>": gguf.TokenType.NORMAL,
    "<fim_prefix>": gguf.TokenType.USER_DEFINED,
    "<|start|>": gguf.TokenType.CONTROL,
    "  ": gguf.TokenType.USER_DEFINED,
    "the": gguf.TokenType.USER_DEFINED,
    "<the": gguf.TokenType.UNKNOWN,
    "[PAD99]": gguf.TokenType.UNUSED,
    **dict.fromkeys(("Ġand", "you", "123"), gguf.TokenType.NORMAL),  # tokens that no merge makes
}


def every_pair(path: Path, pre: str) -> None:
    """Write a vocabulary for one pre-tokenizer: all pairs of bytes (or of some characters), which merge in random order."""
    of_bytes = pre not in CHARACTER_PRES and pre not in SCORED
    letters = list(BYTE_TO_LETTER.values() if of_bytes else LETTERS)
    pairs = [(left, right) for left in letters for right in letters]
    random.Random(0).shuffle(pairs)
    types = dict.fromkeys([*letters, *(left + right for left, right in pairs), "\n\n\n"], gguf.TokenType.NORMAL) | ODD_TOKENS
    if not of_bytes:
        types |= {f"<0x{byte:02X}>": gguf.TokenType.BYTE for byte in range(256)}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(NAMES.get(pre, "pairs"))
    writer.add_tokenizer_model("llama" if pre in SCORED else "gpt2")
    writer.add_token_list(list(types))
    writer.add_token_types(list(types.values()))
    if pre in SCORED:
        writer.add_token_scores([random.Random(token).randrange(1000) / 7 for token in types])  # some are equal
        writer.add_add_space_prefix(SCORED[pre])
    else:
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges([f"{left} {right}" for left, right in pairs])
    writer.add_bos_token_id(list(types).index("<|bos|>"))
    writer.add_eos_token_id(list(types).index("<|im_end|>"))
    for key in ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"):
        writer.add_uint32(f"llama.{key}", 32)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def differences(path: Path, interpreter: str, count: int, seed: int, corpora: Sequence[str]) -> Iterator[str]:
    """Differences between the runtime's tokenizer of a GGUF file and llama.cpp's, on `count` strings."""
    metadata = read_gguf(path).metadata
    tokenizer = load_gguf_tokenizer(metadata)
    if tokenizer is None:
        raise SystemExit(f"{path} has no tokenizer")
    llama = LlamaCpp(interpreter, path)
    if llama.ends != list(gguf_end_ids(metadata)):
        yield f"ends {gguf_end_ids(metadata)} here, {llama.ends} there"
    tokens = [tokenizer.id_to_token(id) for id in range(tokenizer.vocab_size)]
    strings = Strings(seed, tokens, [tokens[id] for id in sorted(tokenizer.special_ids)], corpora)
    drops_space = metadata["tokenizer.ggml.model"] == "llama" and metadata.get("tokenizer.ggml.add_space_prefix", True)
    for _ in range(count):
        text = strings.next()
        plain, parsed, around = llama.ids(text)
        ours = tokenizer.encode(text, add_special=False), tokenizer.encode(text, add_special=False, parse_special=True)
        yield from different(f"{text!r}", ours[0], plain)
        yield from different(f"{text!r} with special tokens", ours[1], parsed)
        yield from different(f"{text!r} with BOS", tokenizer.encode(text, parse_special=True), around)
        yield from undecoded(tokenizer, llama, parsed, drops_space)
    llama.close()


def different(what: str, ours: object, theirs: object) -> Iterator[str]:
    """One line if the two differ."""
    if ours != theirs:
        yield f"{what}: {ours} here, {theirs} there"


def undecoded(tokenizer: Tokenizer, llama: LlamaCpp, ids: list[int], drops_space: bool) -> Iterator[str]:
    """Compare the texts of ids, without and with special tokens."""
    ordinary = [id for id in ids if id not in tokenizer.special_ids]
    for special, kept in ((True, ids), (False, ordinary)):
        pieces = llama.pieces(kept, special)
        if pieces and drops_space:
            pieces[0] = pieces[0].removeprefix(b" ")
        expected = b"".join(pieces).decode("utf-8", "replace")
        yield from different(f"the text of {ids}", tokenizer.decode(ids, skip_special=not special), expected)


def corpora_in(paths: Sequence[Path]) -> list[str]:
    """The texts of these files; by default this project's sources."""
    found = paths or [*ROOT.glob("*.md"), *ROOT.glob("nanollama/*/*.py")]
    return [path.read_text(encoding="utf-8")[:1_000_000] for path in found]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the differences; returns 0 if there are none."""
    parser = argparse.ArgumentParser(prog="python -m conformance.fuzz.tokenizer", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="GGUF files with a tokenizer")
    parser.add_argument("--pre", nargs="*", default=[], help=f"pre-tokenizers to try, or {', '.join(SCORED)}, or all")
    parser.add_argument("--llamacpp", default=sys.executable, help="a Python with llama-cpp-python (default: this one)")
    parser.add_argument("--count", type=int, default=2000, help="strings per vocabulary (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--texts", nargs="*", type=Path, default=[], help="UTF-8 texts for parts (default: this project's)")
    options = parser.parse_args(argv)
    corpora = corpora_in(options.texts)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        cases = [(path.name, path) for path in options.files]
        for name in (*PRE_TOKENIZERS, *CHARACTER_PRES, *SCORED) if options.pre == ["all"] else options.pre:
            cases.append((f"every pair, cut by {name}", Path(folder) / name))
        for name, path in cases:
            if path.parent == Path(folder):
                every_pair(path, path.name)
            found = list(differences(path, options.llamacpp, options.count, options.seed, corpora))
            print(f"{name}: {options.count} strings, {len(found)} differences", flush=True)
            for line in found[:SHOWN]:
                print(f"    {line:.1000}")
            failed += bool(found)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
