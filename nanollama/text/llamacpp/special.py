"""The special tokens of a GGUF vocabulary by llama.cpp's rules: which tokens they are, and how they are found in text.

llama.cpp changes the token types of a file: it has a list of some hundred texts of special tokens, because many converters
write wrong types. Source: llama.cpp, src/llama-vocab.cpp (impl::load, tokenizer_st_partition).
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from nanollama.text.added_tokens import AddedToken, AddedTokens
from nanollama.text.sentencepiece.model import PieceType

_ends = (
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> <|eom_id|> "
    "<EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> [e~[ "
    "<｜end▁of▁sentence｜>"
)
END_TEXTS = frozenset(_ends.split())
"""Tokens that end an answer, and are control tokens whatever their type in the file."""

FILL_IN_TEXTS = {
    "fim_pre": "<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>",
    "fim_suf": "<|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>",
    "fim_mid": "<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>",
    "fim_pad": "<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD]",
    "fim_rep": "<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>",
    "fim_sep": "<|file_sep|>",
}
"""If the file names no token for a role, a token with such a text has the role and is a control token. Of several, llama.cpp
takes any (the order of its hash table); here it is the one with the lowest id."""

ENDING_ROLES = ("fim_pad", "fim_rep", "fim_sep")
SHOWN_TEXTS = frozenset(("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"))
C_SPACE = " \t\n\v\f\r"  # isspace in the C locale


def settle_types(
    ids: dict[str, int], types: Sequence[PieceType], roles: dict[str, int]
) -> tuple[list[PieceType], frozenset[int]]:
    """The types that llama.cpp gives to the tokens, and the ids that end an answer.

    ids: token to id. types: by id, as stored. roles: the ids of "eos", "fim_pad" and other roles.
    """
    settled, roles = list(types), dict(roles)
    for role, usual in FILL_IN_TEXTS.items():
        found = [ids[text] for text in usual.split() if text in ids]
        if role not in roles and found:
            roles[role] = min(found)
            settled[roles[role]] = PieceType.CONTROL
    ends = {ids[text] for text in END_TEXTS if text in ids}
    for id in ends:
        settled[id] = PieceType.CONTROL
    for text in SHOWN_TEXTS & ids.keys():
        settled[ids[text]] = PieceType.USER_DEFINED
    ends |= {roles[role] for role in (*ENDING_ROLES, "eos", "eot", "eom") if role in roles}
    texts = {text for text in END_TEXTS | {"<|plamo:eos|>"} if ids.get(text) in ends}
    if "<|end|>" in texts and {"<|call|>", "<|calls|>"} & texts and {"<|return|>", "<|flush|>"} & texts:
        settled[ids["<|end|>"]] = PieceType.USER_DEFINED  # gpt-oss: it ends a message, not the answer
        ends.remove(ids["<|end|>"])
    if "</s>" in texts and {"<|tool_response>", "<|plamo:eos|>"} & texts:
        settled[ids["</s>"]] = PieceType.NORMAL  # Gemma 4: a piece of HTML
        ends.remove(ids["</s>"])
    return settled, frozenset(ends)


def special_tokens(tokens: Sequence[str], types: Sequence[PieceType], name: str, pre: str) -> Iterator[AddedToken]:
    """Yields the tokens that are found in text before it is cut; lstrip and rstrip: white space that belongs to them.

    name: `general.name`. pre: `tokenizer.ggml.pre`. GGUF has no field for that white space; llama.cpp uses these names.
    """
    is_phi3 = "phi-3" in name.lower() or "phi3" in name.lower()
    left = "<mask>" if any(jina in pre for jina in ("jina-v2-de", "jina-v2-es", "jina-v2-code")) else None
    if left is None and not is_phi3 and "modern-bert" in name.lower():
        left = "[MASK]"
    ordinary = (PieceType.NORMAL, PieceType.BYTE, PieceType.UNUSED)
    for id, (text, type) in enumerate(zip(tokens, types, strict=True)):
        if type not in ordinary:
            right = is_phi3 and left is None and text not in ("<unk>", "<s>", "<|endoftext|>")
            yield AddedToken(text, id, type is not PieceType.USER_DEFINED, lstrip=text == left, rstrip=right)


class LongestFirst(AddedTokens):
    """Added tokens, found in llama.cpp's order: first every occurrence of the longest, then of the next.

    Hugging Face's tokenizers go from left to right and take the longest token that begins at a place: of `<a>` and `>bcd`,
    they find the first in `<a>bcd`, llama.cpp the second. Of overlapping tokens of one length, the lowest id is first here.
    """

    def __init__(self, tokens: Iterable[AddedToken]) -> None:
        self.by_content = {token.content: token for token in tokens}
        self.by_id = {token.id: token for token in self.by_content.values()}
        self._lengths: dict[str, set[int]] = {}  # of the tokens that begin with a letter
        for content in self.by_content:
            self._lengths.setdefault(content[0], set()).add(len(content))
        self._begin = re.compile(f"[{''.join(map(re.escape, self._lengths))}]") if self._lengths else None

    def split(self, text: str, parse_special: bool) -> Iterator[int | str]:
        """Yields, in order, the id of every added token in `text` and the non-empty texts between them."""
        done = 0
        for start, end, token in sorted(self._placed(text, parse_special)):
            if start > done:
                yield text[done:start]
            yield token
            done = end
        if done < len(text):
            yield text[done:]

    def _placed(self, text: str, parse_special: bool) -> list[tuple[int, int, int]]:
        """(start, end, id) of every token that is found, including its white space."""
        found = sorted(self._occurrences(text, parse_special))
        taken = bytearray(len(text) if found else 0)
        placed = []
        for _, id, start in found:
            token = self.by_id[id]
            end = start + len(token.content)
            if taken.find(1, start, end) >= 0:
                continue
            while token.lstrip and start and not taken[start - 1] and text[start - 1] in C_SPACE:
                start -= 1
            while token.rstrip and end < len(text) and not taken[end] and text[end] in C_SPACE:
                end += 1
            taken[start:end] = b"\1" * (end - start)
            placed.append((start, end, id))
        return placed

    def _occurrences(self, text: str, parse_special: bool) -> Iterator[tuple[int, int, int]]:
        """Yields (minus the length in bytes, id, place) of every text that spells a token; sorted: llama.cpp's order."""
        for match in self._begin.finditer(text) if self._begin else ():
            start = match.start()
            for length in self._lengths[match[0]]:
                token = self.by_content.get(text[start : start + length])
                if token and (parse_special or not token.special):
                    yield -len(token.content.encode("utf-8")), token.id, start
