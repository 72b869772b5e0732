"""The public functions around the loop: a loaded model that encodes and answers, long conversations, batches, settings."""

# mypy: disable-error-code="arg-type,misc"
# tables mix good and bad arguments

import dataclasses
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from conformance.checks import Failed, check
from conformance.checks.assertions import expect, expect_equal, expect_refused
from conformance.checks.chat.template_input import template
from conformance.checks.chat.to_ids import Letters, ids_of
from conformance.checks.generation.rigged import Pieces, RiggedModel, scripted
from nanollama import lm
from nanollama.cli import batch, output, settings
from nanollama.generation.request import Piece, Request, Usage
from nanollama.generation.sampling import SamplingParams
from nanollama.text.chat import conversation
from nanollama.text.chat.encode import encode_chat

WORDS = Pieces([b"a", b"b", b"c", b"d", b"<s>"], special_ids=frozenset({4}), bos_id=4)


def loaded(tokenizer: Any, chat: Any = None, script: Sequence[int] = (1, 2, 3, 3, 3, 3), prompt: int = 2) -> lm.LM:
    model: Any = RiggedModel(scripted([*script, *[3] * 20], 5, prompt), 5, context=16)
    return lm.LM(model, tokenizer, chat, model.defaults)


class Typed(Pieces):
    """Pieces that can encode: each letter is a token, BOS comes first."""

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        return [4] * add_special + [b"abcd".index(letter.encode()) for letter in text]


@check("GENR-010", "ERRS-010", "STOP-001", area="generation")
def a_loaded_model_continues_texts() -> None:
    place = "lm.LM"
    subject = loaded(Typed(WORDS.pieces, WORDS.special_ids, 4))
    greedy = {"temperature": 0.0}
    expect_equal(place, subject.encode("ab"), [4, 0, 1], "the ids of a prompt")
    expect_equal(place, list(subject.generate("a", max_tokens=3, **greedy)), ["b", "c", "d"], "pieces of text")
    expect_equal(place, "".join(subject.generate("a", max_tokens=5, stop=["cd"], **greedy)), "b", "text before a stop string")
    pieces = list(subject.stream([Request([4, 0], max_tokens=2, params=SamplingParams(temperature=0.0))], context=3))
    expect_equal(place, [(p.token_id, p.finish_reason) for p in pieces], [(1, "context")], "a context is passed on")
    banned = "".join(subject.generate("a", max_tokens=2, logit_bias={1: -100.0}, **greedy))
    expect_equal(place, banned, "ac", "sampling parameters are passed on")
    misspelled: dict[str, Any] = {"tempreature": 1.0}
    try:
        subject.generate("a", **misspelled)
    except TypeError as error:
        expect(place, "tempreature" in str(error), f"the error of an unknown parameter is {error}")
    else:
        raise Failed(place, "an unknown parameter is accepted")
    expect_refused(place, lambda: subject.generate("a", temperature=-1.0), "temperature", "a wrong value")
    expect_refused(place, lambda: loaded(None).generate("a"), "tokenizer", "a model without tokenizer")
    expect_refused(
        place, lambda: subject.encode_chat([{"role": "user", "content": "x"}]), "chat template", "a model without template"
    )


@check("CHAT-004", "CHAT-006", area="chat_template")
def a_loaded_model_chats_by_its_own_template() -> None:
    place, chat = "lm.LM", [{"role": "user", "content": "x"}]
    source = template(
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}{{ tools | length if tools }}"
    )
    subject = loaded(Letters(adds_bos=True), source)
    expect_equal(place, subject.encode_chat(chat), ids_of("<s>", "x", "<|im_start|>"), "ids of a conversation, BOS put first")
    expect_equal(
        place, subject.encode_chat(chat, tools=[{}], add_generation_prompt=False), ids_of("<s>", "x1"), "options are passed on"
    )
    own = loaded(Letters(adds_bos=True), template("<s>{{ messages[0].content }}"))
    expect_equal(place, own.encode_chat(chat), ids_of("<s>", "x"), "BOS that the template writes")
    expect_equal(
        place, own.encode_chat([{"role": "user", "content": "<s>"}]), [5000, *map(ord, "<s>")], "BOS that a user writes"
    )
    expect_equal(
        place,
        own.encode_chat(chat),
        encode_chat(Letters(True), own.template, chat, add_bos=True) if own.template else [],
        "the template's ids",
    )


@check("CHAT-007", "CHAT-008", area="chat_template")
def conversations_drop_their_oldest_turns() -> None:
    place = "text.chat.conversation.Conversation"

    def encode(chat: list[dict[str, str]]) -> list[int]:
        return [0] * sum(len(message["content"]) for message in chat)

    subject = conversation.Conversation("sy", [("aa", "bb"), ("cc", "dd"), ("ee", "ff")])
    chat = [("system", "sy"), ("user", "cc"), ("assistant", "dd"), ("user", "ee"), ("assistant", "ff"), ("user", "new")]
    got = [(m["role"], m["content"]) for m in subject.messages(1, "new")]
    expect_equal(place, got, chat, "messages without the first turn")
    expect_equal(place, [(m["role"]) for m in subject.messages()], ["system", *["user", "assistant"] * 3], "all messages")
    expect_equal(
        place,
        conversation.Conversation(None, []).messages(0, "x"),
        [{"role": "user", "content": "x"}],
        "without a system prompt",
    )
    for context, reserve, dropped in (
        (20, 3, 0),
        (20, 4, 1),
        (16, 3, 1),
        (15, 3, 2),
        (10, 1, 2),
        (9, 1, 3),
        (9, 4, 3),
        (9, 20, 3),
        (6, 1, 3),
    ):
        fresh = dataclasses.replace(subject, dropped=0)
        ids = fresh.fit("new", encode, context, reserve)
        wanted = 2 + 4 * (3 - dropped) + 3
        expect_equal(
            place,
            (fresh.dropped, len(ids)),
            (dropped, wanted),
            f"turns dropped for a context of {context}, {reserve} in reserve",
        )
    kept = dataclasses.replace(subject, dropped=2)
    expect_equal(place, (len(kept.fit("new", encode, 100, 1)), kept.dropped), (9, 2), "turns once dropped stay dropped")
    expect_refused(
        place, lambda: dataclasses.replace(subject).fit("new", encode, 5, 1), "5 tokens", "a message that fills the context"
    )
    expect_refused(
        "text.chat.conversation.check_message",
        lambda: conversation.check_message("x", {"role": "user"}),
        "role and content",
        "no content",
    )
    expect_refused(
        "text.chat.conversation.check_message",
        lambda: conversation.check_message("x", {"role": "user", "content": 1}),
        "content",
        "a number",
    )


@check("GENR-011", "BATCH-013", "ERRS-011", area="batching")
def a_batch_answers_every_line_in_its_place() -> None:
    place, subject = "cli.batch.answer_group", loaded(Typed(WORDS.pieces, WORDS.special_ids, 4))
    lines = [
        (1, b'{"prompt": "a", "max_tokens": 2}'),
        (2, b'{"prompt": "a", "nonsense": 2}'),
        (3, b'{"prompt": "a", "max_tokens": 1, "temperature": 0.0}'),
        (4, b"not json"),
        (5, b'{"prompt": "a", "stop": "c"}'),
        (6, b'{"prompt": "aaaaaaaaaaaaaaaaaaaaaaa"}'),
        (7, b'{"prompt": "a", "messages": []}'),
        (8, b'{"prompt": 3}'),
        (9, b"{}"),
    ]
    found = batch.answer_group(subject, lines, {"temperature": 0.0, "max_tokens": 3}, True, None)
    expect_equal(place, [number for number, _ in found], list(range(1, 10)), "the numbers of lines")
    texts = [
        (number, r["text"], r["finish_reason"], r["usage"]["completion_tokens"]) for number, r in found if "error" not in r
    ]
    expect_equal(place, texts, [(1, "bc", "length", 2), (3, "b", "length", 1), (5, "b", "stop", 2)], "answers")
    for number, part in (
        (2, "nonsense"),
        (4, "JSON"),
        (6, "24 tokens"),
        (7, "prompt or messages"),
        (8, "prompt"),
        (9, "prompt or messages"),
    ):
        error = dict(found)[number].get("error", "")
        expect(
            "cli.batch.read_request", part in error, f"the error of line {number} is {error!r}, which does not name {part!r}"
        )
    plain = batch.answer_group(subject, [(1, b"a"), (2, b"a\xff")], {"temperature": 0.0, "max_tokens": 1}, False, None)
    expect_equal(place, (plain[0][1].get("text"), "UTF-8" in plain[1][1].get("error", "")), ("b", True), "lines of plain text")
    nan: Any = RiggedModel(lambda ids: [float("nan")] * 5 if 1 in ids else [0.0, 0.0, 0.0, 9.0, 0.0], 5, context=16)
    broken = lm.LM(nan, Typed(WORDS.pieces, WORDS.special_ids, 4), None, nan.defaults)
    requests = [Request(ids, SamplingParams(temperature=0.0), 2) for ids in ([0], [1], [2])]
    got = [("error" in r, r.get("text")) for r in batch.answer_together(broken, requests, None)]
    expect_equal(
        "cli.batch.answer_together", got, [(False, "dd"), (True, None), (False, "dd")], "one request that fails under way"
    )


@check("LIMT-006", "GENR-012", area="generation")
def answers_are_added_up() -> None:
    usage = Usage(3, 2, 7, 0.5, 0.25)
    answer = output.Answer()
    for piece in (Piece(0, 5, "a"), Piece(0, 6, "b", "length", usage)):
        answer.add(piece)
    wanted = {"text": "ab", "token_ids": [5, 6], "finish_reason": "length", "seed": 7}
    wanted |= {"usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
    expect_equal("cli.output.Answer", answer.to_json(), wanted, "an answer as JSON")
    expect_equal("cli.output.rates", output.rates(usage), (6.0, 4.0), "tokens per second: the first belongs to prefill")
    expect_equal("cli.output.rates", output.rates(Usage(3, 0, 7, 0.0, 0.0)), (None, None), "rates of nothing")


@check("ERRS-010", "CLIX-001", area="generation")
def settings_reach_the_request() -> None:
    place = "cli.settings.make_request"
    values = {"temperature": 0.5, "top_k": 3, "seed": 9, "stop": ["x"], "max_tokens": 4, "ignore_eos": True}
    got = settings.make_request([1], values)
    facts = got.params.temperature, got.params.top_k, got.params.seed, got.stop, got.max_tokens, got.ignore_eos
    expect_equal(place, facts, (0.5, 3, 9, ("x",), 4, True), "fields of a request")
    names = {f.name for f in dataclasses.fields(SamplingParams)} | {"stop", "max_tokens", "ignore_eos"}
    expect_equal("cli.settings.SETTINGS", set(settings.SETTINGS), names, "every parameter has a setting")
    for name, text, value in (
        ("temperature", "0.5", 0.5),
        ("top_k", "3", 3),
        ("stop", "a", ["a"]),
        ("logit_bias", "4=-1.5", {4: -1.5}),
        ("logit_bias", '{"4": 2}', {4: 2}),
        ("ignore_eos", "true", True),
        ("stop", '["a", "b"]', ["a", "b"]),
    ):
        expect_equal("cli.settings.read_typed", settings.read_typed(name, text), value, f"{name} {text}")
    for name, text in (
        ("temperature", "x"),
        ("top_k", "1.5"),
        ("ignore_eos", "yes"),
        ("logit_bias", "4"),
        ("stop", "[1"),
        ("top_p", "2"),
    ):
        expect_refused(
            "cli.settings.read_typed", lambda name=name, text=text: settings.read_typed(name, text), "", f"{name} {text}"
        )
    expect_refused("cli.settings.bias_table", lambda: settings.bias_table([(1, 1.0), (1, 2.0)]), "twice", "a token twice")
    options = SimpleNamespace(
        **dict.fromkeys(settings.SETTINGS) | {"temperature": "0.25", "stop": ["a", "b"], "logit_bias": ["1=2", "3=4"]}
    )
    got_values = settings.read_settings(options)
    wanted = {
        "max_tokens": settings.DEFAULT_MAX_TOKENS,
        "temperature": 0.25,
        "stop": ["a", "b"],
        "logit_bias": {1: 2.0, 3: 4.0},
    }
    expect_equal("cli.settings.read_settings", got_values, wanted, "options of a command line")
    expect_equal("cli.settings.checked", json.loads(json.dumps(settings.checked("stop", "a"))), ["a"], "one stop string")
