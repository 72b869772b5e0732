"""The settings of an answer: one table for the options of a command, `/set`, and the fields of a batch line."""

import json
from argparse import Namespace, _ArgumentGroup
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nanollama.errors import NanollamaError, quote

if TYPE_CHECKING:
    from nanollama.generation.request import Request

Values = dict[str, Any]
DEFAULT_MAX_TOKENS = 2048  # a model that never samples its end token would fill its context, maybe for hours


def number(text: str) -> float:
    """Text to float."""
    try:
        return float(text)
    except ValueError:
        raise NanollamaError(f"{quote(text)} is not a number") from None


def whole(text: str) -> int:
    """Text to int."""
    try:
        return int(text)
    except ValueError:
        raise NanollamaError(f"{quote(text)} is not a whole number") from None


def truth(text: str) -> bool:
    """Text to bool."""
    if text not in ("true", "false"):
        raise NanollamaError(f"{quote(text)} is neither true nor false")
    return text == "true"


def pair(text: str) -> list[tuple[int, float]]:
    """ID=BIAS to a list of one pair."""
    token, equals, bias = text.partition("=")
    if not equals:
        raise NanollamaError(f"{quote(text)} is not ID=BIAS, such as 42=-100")
    return [(whole(token), number(bias))]


def one(text: str) -> list[str]:
    """Text to a list of one text."""
    return [text]


@dataclass(frozen=True)
class Setting:
    """`name` is the field of SamplingParams or Request; `read` turns a text into its value, a list if it may repeat."""

    name: str
    flag: str
    metavar: str
    read: Callable[[str], Any]
    help: str
    repeats: bool = False


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("temperature", "--temp", "T", number, "divides the logits; 0 always takes the likeliest token (1)"),
        Setting("top_k", "--top-k", "K", whole, "keep the K likeliest tokens; 0 is off (0)"),
        Setting("top_p", "--top-p", "P", number, "keep the likeliest tokens that make up P; 1 is off (1)"),
        Setting("min_p", "--min-p", "P", number, "keep tokens at least P times as likely as the likeliest; 0 is off (0)"),
        Setting("typical_p", "--typical-p", "P", number, "keep the most typical tokens that make up P; 1 is off (1)"),
        Setting("repetition_penalty", "--repeat-penalty", "R", number, "makes seen tokens R times less likely; 1 is off (1)"),
        Setting("presence_penalty", "--presence-penalty", "X", number, "subtracted once from the logit of sampled tokens (0)"),
        Setting("frequency_penalty", "--frequency-penalty", "X", number, "subtracted for each time a token was sampled (0)"),
        Setting("penalty_window", "--repeat-last-n", "N", whole, "the penalties count the last N tokens; -1: all (-1)"),
        Setting("logit_bias", "--logit-bias", "ID=BIAS", pair, "added to a token's logit; -inf bans it; may repeat", True),
        Setting("seed", "--seed", "N", whole, "the same seed gives the same answer (a new one each time)"),
        Setting("stop", "--stop", "TEXT", one, "end before this text; may repeat", True),
        Setting("max_tokens", "--max-tokens", "N", whole, f"sample at most N tokens ({DEFAULT_MAX_TOKENS})"),
        Setting("ignore_eos", "--ignore-eos", "", truth, "go on after the model's end token"),
    )
}


def add_settings(group: _ArgumentGroup) -> None:
    """Give a command an option for every setting; the texts are read later, by `read_settings`."""
    for setting in SETTINGS.values():
        if setting.read is truth:
            group.add_argument(setting.flag, dest=setting.name, action="store_const", const="true", help=setting.help)
        else:
            action = "append" if setting.repeats else "store"
            group.add_argument(setting.flag, dest=setting.name, action=action, metavar=setting.metavar, help=setting.help)


def read_settings(options: Namespace) -> Values:
    """The settings that a command line gives, checked; an error names the option."""
    values: Values = {"max_tokens": DEFAULT_MAX_TOKENS}
    for setting in SETTINGS.values():
        given = getattr(options, setting.name)
        if given is not None:
            with naming(setting.flag):
                values[setting.name] = read_texts(setting, [given] if isinstance(given, str) else given)
    return values


def read_texts(setting: Setting, texts: Sequence[str]) -> Any:
    """The checked value of a setting from one or several texts."""
    values = [setting.read(text) for text in texts]
    return checked(setting.name, [item for value in values for item in value] if setting.repeats else values[-1])


def read_typed(name: str, text: str) -> Any:
    """The checked value of a setting from `/set`: as on the command line, or any JSON value if it begins like one."""
    if text[:1] in ("[", "{", '"'):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise NanollamaError(f"{quote(text)} begins like JSON, but is none: {error}") from None
        return checked(name, value)
    return read_texts(SETTINGS[name], [text])


def checked(name: str, value: Any) -> Any:
    """A value in the form that a request takes; raises NanollamaError if a request refuses it."""
    if name == "stop" and isinstance(value, str):
        value = [value]
    if name == "logit_bias":
        value = bias_table(value)
    if name == "ignore_eos" and not isinstance(value, bool):
        raise NanollamaError(f"ignore_eos is {quote(value)}; expected true or false")
    make_request([0], {name: value})
    return value


def bias_table(value: Any) -> Any:
    """Pairs, or a JSON object whose keys are texts, as a dict from token id to bias; other values as they are."""
    if isinstance(value, Mapping):
        return {whole(token) if isinstance(token, str) else token: bias for token, bias in value.items()}
    if isinstance(value, list) and all(isinstance(item, tuple) for item in value):
        table = dict(value)
        if len(table) < len(value):
            raise NanollamaError(f"a token id stands twice in {value}; give each once")
        return table
    return value


def make_request(prompt_ids: Sequence[int], values: Mapping[str, Any]) -> "Request":
    """A request with these settings; the others have their defaults."""
    from nanollama.generation.request import Request  # here: they import torch, and `--help` need not wait
    from nanollama.generation.sampling import SamplingParams

    sampling = {name: value for name, value in values.items() if name in SamplingParams.__dataclass_fields__}
    others = {name: value for name, value in values.items() if name not in sampling}
    return Request(prompt_ids, SamplingParams(**sampling), **others)


def default(name: str) -> Any:
    """The default of a setting."""
    request = make_request([0], {"max_tokens": DEFAULT_MAX_TOKENS})
    return getattr(request.params if hasattr(request.params, name) else request, name)


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Put `what` in front of the message of an error."""
    try:
        yield
    except NanollamaError as error:
        raise NanollamaError(f"{what}: {error}") from error
