"""`nanollama batch FILE`: one prompt per line in, one JSON object per line out, several at a time and in the same order.

A line that can't be answered gives an object with "error", and the others go on. Rows of a batch do not influence each
other: a line's answer is the one it would get alone.
"""

import codecs
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count, islice
from typing import Any, BinaryIO

from nanollama.checkpoint.files import open_plain, parse_object
from nanollama.cli.output import Answer, decode, file_path, new_file, notice, write
from nanollama.cli.run import load_lm, text_ids
from nanollama.cli.settings import SETTINGS, checked, make_request, read_settings
from nanollama.errors import NanollamaError, quote, unknown_name
from nanollama.generation.request import Request
from nanollama.lm import LM

LONGEST_LINE = 16_000_000  # bytes; a file without line ends must not fill the memory

Line = tuple[int, bytes]
Result = dict[str, Any]


def batch_command(options: Namespace) -> int:
    """Answer every line of a file; the exit status is 1 if one could not be."""
    settings, done, failed = read_settings(options), 0, 0
    with open_input(options.file):
        pass  # report a file that can't be read before the model loads
    with destination(options.output) as put:
        lm = load_lm(options)
        lm.stream([], context=options.context)  # refuses a context that the model does not have
        lines = read_lines(options.file)
        while group := list(islice(lines, options.batch_size)):
            as_objects = options.file.lower().endswith(".jsonl")
            for number, result in answer_group(lm, group, settings, as_objects, options.context):
                put(json.dumps({"line": number, **result}, ensure_ascii=False) + "\n")
                done, failed = done + 1, failed + ("error" in result)
                if "error" in result:
                    notice(f"error: {options.file}, line {number}: {result['error']}")
    notice(f"[{done} lines, {failed} with an error]")
    return 1 if failed else 0


def open_input(name: str) -> AbstractContextManager[BinaryIO]:
    """The file, or stdin for "-", as bytes."""
    if name != "-":
        return open_plain(file_path(name))
    if sys.stdin is None:
        raise NanollamaError("stdin is closed, and - stands for it; give a file")
    return nullcontext(sys.stdin.buffer)


@contextmanager
def destination(name: str | None) -> Iterator[Callable[[str], object]]:
    """Yields a function that writes a result: to stdout at once, or to a file that appears when all is done."""
    if name is None:
        yield write
    else:
        with new_file(name) as file:
            yield file.write


def read_lines(name: str) -> Iterator[Line]:
    """The lines of a file, numbered from 1, without their ends; only a newline ends a line."""
    with open_input(name) as file:
        for number in count(1):
            raw = file.readline(LONGEST_LINE + 1)
            if not raw:
                return
            if len(raw) > LONGEST_LINE:
                raise NanollamaError(f"{name}, line {number}: longer than {LONGEST_LINE:,} bytes; is this a file of prompts?")
            raw = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
            yield number, raw.removesuffix(b"\n").removesuffix(b"\r")


def answer_group(
    lm: LM, group: Sequence[Line], settings: Mapping[str, Any], as_objects: bool, context: int | None
) -> list[tuple[int, Result]]:
    """The results of some lines, in their order; the valid requests run together."""
    requests: dict[int, Request] = {}
    results: dict[int, Result] = {}
    for number, raw in group:
        try:
            text = decode(raw, "it")
            request = read_request(lm, raw, settings) if as_objects else make_request(text_ids(lm, text), settings)
            lm.stream([request], context=context)  # runs nothing yet, but refuses what does not fit
            requests[number] = request
        except NanollamaError as error:
            results[number] = {"error": error.problem}
    results |= zip(requests, answer_together(lm, list(requests.values()), context), strict=True)
    return [(number, results[number]) for number, _ in group]


def answer_together(lm: LM, requests: Sequence[Request], context: int | None) -> list[Result]:
    """The results of one batch. If a request fails while it runs (no token can be chosen), each runs alone."""
    answers = [Answer() for _ in requests]
    try:
        for piece in lm.stream(requests, context=context):
            answers[piece.index].add(piece)
    except NanollamaError as error:
        if len(requests) == 1:
            return [{"error": error.problem}]
        return [result for request in requests for result in answer_together(lm, [request], context)]
    return [answer.to_json() for answer in answers]


def read_request(lm: LM, raw: bytes, settings: Mapping[str, Any]) -> Request:
    """A line of a .jsonl file as a request: a prompt or messages, and settings that override those of the command line."""
    fields = parse_object(raw, "it")
    known = ["prompt", "messages", *SETTINGS]
    for name in fields.keys() - set(known):
        raise unknown_name("field", name, known)
    if ("prompt" in fields) == ("messages" in fields):
        raise NanollamaError("expected either prompt or messages, one of them")
    overrides = {name: checked(name, value) for name, value in fields.items() if name in SETTINGS}
    if "messages" in fields:
        ids = lm.encode_chat(fields["messages"])
    elif isinstance(fields["prompt"], str):
        ids = text_ids(lm, fields["prompt"])
    else:
        raise NanollamaError(f"prompt is {quote(fields['prompt'])}; expected a text")
    return make_request(ids, {**settings, **overrides})
