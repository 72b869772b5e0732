"""`nanollama run`: continue one text, or answer one message."""

import json
from argparse import Namespace
from typing import Any

from nanollama.cli.output import Answer, end_line, notice, rates, read_stdin, speed_line, write
from nanollama.cli.settings import DEFAULT_MAX_TOKENS, Values, make_request, read_settings
from nanollama.errors import NanollamaError
from nanollama.lm import LM, load


def run_command(options: Namespace) -> int:
    """Continue a text, or answer one message."""
    settings = read_settings(options)
    if options.system is not None and not options.chat:
        raise NanollamaError("--system is for the chat template: add --chat, or put the text into the prompt")
    prompt = read_stdin() if options.prompt in (None, "-") else options.prompt
    lm = load_lm(options)
    request = make_request(prompt_ids(lm, prompt, options), settings)
    answer = Answer()
    for piece in lm.stream([request], context=options.context):
        answer.add(piece)
        if not options.json:
            write(piece.text)
    if options.json:
        write(json.dumps(answer_report(options.model, answer), ensure_ascii=False) + "\n")
    else:
        end_line(answer.text)
    notice_end(answer, settings)
    return 0


def load_lm(options: Namespace) -> LM:
    """The model that the options name."""
    lm = load(options.model, options.dtype, options.device, options.quantize)
    if options.compile:
        lm.compile()
    return lm


def prompt_ids(lm: LM, prompt: str, options: Namespace) -> list[int]:
    """The ids of the prompt, as text or as a message."""
    if not options.chat:
        return text_ids(lm, prompt, parse_special=options.parse_special)
    system = [] if options.system is None else [{"role": "system", "content": options.system}]
    return lm.encode_chat([*system, {"role": "user", "content": prompt}], parse_content=options.parse_special)


def text_ids(lm: LM, text: str, *, parse_special: bool = False) -> list[int]:
    """The ids of a text to continue, at least one."""
    ids = lm.encode(text, parse_special=parse_special)
    if not ids:
        raise NanollamaError("the prompt is empty, and this tokenizer puts no token in front of a text; give some text")
    return ids


def answer_report(model: str, answer: Answer) -> dict[str, Any]:
    """The object that `run --json` prints."""
    usage = answer.usage
    assert usage is not None
    prefill, decode = rates(usage)
    timings = {
        "prefill_seconds": usage.prefill_seconds,
        "decode_seconds": usage.decode_seconds,
        "prefill_tokens_per_second": prefill,
        "decode_tokens_per_second": decode,
    }
    return {"model": model, **answer.to_json(), "timings": timings}


def notice_end(answer: Answer, settings: Values) -> None:
    """Print the speed of an answer, and a line if it was cut by a limit that the user did not set."""
    if answer.finish_reason == "context":
        notice("[the answer stops here because the context is full]")
    elif answer.finish_reason == "length" and settings.get("max_tokens") == DEFAULT_MAX_TOKENS:
        notice(f"[the answer stops here after {DEFAULT_MAX_TOKENS} tokens; --max-tokens changes that]")
    if answer.usage is not None:
        notice(speed_line(answer.usage))
