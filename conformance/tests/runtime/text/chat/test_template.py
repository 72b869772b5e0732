"""Chat templates by hand: what a template sees, what is refused, and with which words."""

from datetime import datetime
from typing import Any

import pytest

from nanollama.errors import NanollamaError
from nanollama.text.chat.sandbox import Sandbox
from nanollama.text.chat.template import ChatTemplate

HI = [{"role": "user", "content": "Hi"}]
SHARED = Sandbox()


def render(source: str | dict[str, str], messages: Any = HI, **options: Any) -> str:
    return ChatTemplate(source, sandbox=SHARED, bos_token="<s>", eos_token="</s>").render(messages, **options)


def test_a_template_loops_over_messages() -> None:
    source = "{% for m in messages %}[{{ m.role }}] {{ m['content'] }}\n{% endfor %}"
    assert render(source, [*HI, {"role": "assistant", "content": "Grüße <&'\">"}]) == "[user] Hi\n[assistant] Grüße <&'\">\n"


def test_blocks_leave_no_blank_lines_or_indentation() -> None:
    assert render("{% if true %}\n  {% if true %}\n    a\n  {% endif %}\n{% endif %}\nb\n") == "    a\nb"


def test_special_tokens_are_variables_and_missing_ones_are_empty() -> None:
    assert render("{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ pad_token is defined }}") == "<s>|</s>||False"
    assert ChatTemplate("{{ image_token }}{{ unk_token }}", image_token="<img>", unk_token=None).render(HI) == "<img>"


def test_extra_variables_reach_the_template_and_override_special_tokens() -> None:
    assert render("{{ enable_thinking }}{{ bos_token }}", enable_thinking=False, bos_token="<b>") == "False<b>"


def test_the_generation_prompt_is_asked_for_unless_told_otherwise() -> None:
    source = "{{ add_generation_prompt }}"
    assert (render(source), render(source, add_generation_prompt=False)) == ("True", "False")


def test_tools_and_documents_reach_the_template() -> None:
    source = "{{ tools | tojson }} {{ documents[0].title }} {{ tools is none }}"
    assert render(source, tools=[{"name": "f"}], documents=[{"title": "T"}]) == '[{"name": "f"}] T False'
    assert render("{{ tools is none }}{{ documents is none }}") == "TrueTrue"


def test_tojson_escapes_nothing_for_html_and_takes_the_options_of_json() -> None:
    value = {"b": "<é>'", "a": [1, None]}
    assert render("{{ v | tojson }}", v=value) == '{"b": "<é>\'", "a": [1, null]}'
    assert render("{{ v | tojson(ensure_ascii=True, sort_keys=True) }}", v=value) == '{"a": [1, null], "b": "<\\u00e9>\'"}'
    assert render("{{ [1] | tojson(indent=2) }}{{ {'a': 1} | tojson(separators=(',', ':')) }}") == '[\n  1\n]{"a":1}'


def test_strftime_now_shows_the_clock_that_was_given() -> None:
    template = ChatTemplate("{{ strftime_now('%d %b %Y %H:%M') }}", clock=lambda: datetime(2024, 2, 29, 7, 5))
    assert template.render(HI) == "29 Feb 2024 07:05"


def test_loops_can_break_and_continue() -> None:
    skip, stop = "{% if i == 1 %}{% continue %}{% endif %}", "{% if i == 3 %}{% break %}{% endif %}"
    assert render(f"{{% for i in range(9) %}}{skip}{{{{ i }}}}{stop}{{% endfor %}}") == "023"


def test_the_generation_tag_shows_its_body() -> None:
    assert render("a{% generation %}{{ messages[0].content }}{% endgeneration %}b") == "aHib"
    assert render("a {%- generation -%} b {%- endgeneration -%} c") == "abc"


def test_namespaces_keep_values_across_loops() -> None:
    assert render("{% set ns = namespace(n=1) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}") == "4"


def test_dict_makes_dicts() -> None:
    assert render("{{ dict(a=1) }}{{ dict([('b', 2)]) }}") == "{'a': 1}{'b': 2}"
    assert render("{{ dict.fromkeys(['a', 'b'], 0) }}") == "{'a': 0, 'b': 0}"


def test_fields_that_are_none_are_left_out() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": None}
    assert render("{{ messages[0] | tojson }}", [message]) == '{"role": "assistant"}'


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_reaches_templates_under_any_of_its_names(name: str) -> None:
    chat = [{"role": "assistant", "content": "4", name: "2 + 2"}]
    assert render("{{ messages[0].reasoning_content }}={{ messages[0].thinking }}", chat) == "2 + 2=2 + 2"


def test_the_messages_of_the_caller_stay_as_they_are() -> None:
    chat = [{"role": "assistant", "content": [{"type": "text", "text": "a"}], "reasoning": "b", "x": None}]
    render("{{ messages[0].content[0].text }}", chat, continue_final_message=True)
    assert chat == [{"role": "assistant", "content": [{"type": "text", "text": "a"}], "reasoning": "b", "x": None}]


def test_tool_use_is_chosen_when_tools_are_given_and_default_otherwise() -> None:
    named = {"default": "D", "tool_use": "T", "rag": "R"}
    assert (render(named), render(named, tools=[]), render(named, chat_template="rag")) == ("D", "T", "R")
    assert render({"default": "D"}, tools=[{}]) == "D"


def test_a_name_that_no_template_has_is_an_error() -> None:
    with pytest.raises(NanollamaError, match=r"there is no chat template 'x'; there are default \(pass chat_template=NAME\)"):
        render("D", chat_template="x")
    with pytest.raises(NanollamaError, match=r"there is no chat template 'default'; there are rag"):
        render({"rag": "R"})


CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
TRIMMED = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</s>{% endfor %}"


def test_a_continued_message_ends_where_its_text_ends() -> None:
    chat = [*HI, {"role": "assistant", "content": "Sure, "}]
    assert render(CHAT, chat, continue_final_message=True) == "<user>Hi</s><assistant>Sure, "
    assert render(TRIMMED, chat, continue_final_message=True) == "<user>Hi</s><assistant>Sure,"


def test_the_last_text_part_of_a_message_is_continued() -> None:
    source = "{% for p in messages[0].content %}({{ p.text or 'image' }}){% endfor %}</s>"
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, {"type": "image"}]
    assert render(source, [{"role": "assistant", "content": parts}], continue_final_message=True) == "(a)(b"


def test_another_field_can_be_continued() -> None:
    source = "<think>{{ messages[0].reasoning_content }}</think>{{ messages[0].content }}"
    chat = [{"role": "assistant", "content": "4", "reasoning": "2 +"}]
    assert render(source, chat, continue_final_message="reasoning") == "<think>2 +"


@pytest.mark.parametrize(
    ("source", "message", "options", "words"),
    [
        (CHAT, {"content": "a"}, {"add_generation_prompt": True}, "exclude each other"),
        (CHAT, {"content": None}, {}, "no text in 'content'"),
        (CHAT, {"content": [{"type": "image"}]}, {}, "no text in 'content'"),
        (CHAT, {"content": "a"}, {"continue_final_message": "reasoning"}, "never mentions 'reasoning'"),
        ("{{ messages[0].content | upper }}", {"content": "a"}, {}, "does not appear in the rendered chat.*'a'"),
        ("{{ messages[0].content[:2] }}", {"content": "abc"}, {}, "does not appear"),
        ("{{ messages[0].content }}" * 2, {"content": "abc"}, {}, "drops or repeats it"),
    ],
)
def test_a_message_that_cannot_be_continued_is_an_error(source: str, message: Any, options: Any, words: str) -> None:
    with pytest.raises(NanollamaError, match=words):
        render(source, [{"role": "assistant", **message}], **{"continue_final_message": True, **options})


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "messages is empty"),
        ("Hi", "messages is a str"),
        ({"role": "user"}, "messages is a dict"),
        (None, "messages is empty"),
        (3, "messages is a int"),
        (["Hi"], r"messages\[0\] is a str"),
        ([*HI, {"content": "x"}], r"messages\[1\] has the role None"),
        ([{"role": 3, "content": "x"}], r"messages\[0\] has the role 3"),
        ([{"role": "user", "content": 3}], r"messages\[0\]\['content'\] is a int"),
        ([{"role": "user", "content": {"a": 1}}], r"messages\[0\]\['content'\] is a dict"),
        ([{"role": "user", "content": ["Hi"]}], r"messages\[0\]\['content'\]\[0\] is a str"),
        ([{"role": "user", "content": b"Hi"}], r"messages\[0\]\['content'\] is a bytes"),
        ([{"role": "user", 3: "x"}], r"messages\[0\] has the key 3"),
        ([{"role": "user", "image": object()}], r"messages\[0\]\['image'\] is a object"),
        ([{"role": "user", "x": 10**5000}], "can't be passed to the chat template"),
    ],
)
def test_messages_that_are_no_conversation_are_refused(messages: Any, words: str) -> None:
    with pytest.raises(NanollamaError, match=words):
        render("", messages)


def test_data_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NanollamaError, match="nested too deeply"):
        render("", [{"role": "user", "content": "Hi", "x": loop}])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tools": [len]}, r"tools\[0\] is a builtin_function_or_method; expected the JSON schema of a function"),
        ({"tools": {"name": "f"}}, "tools is a dict"),
        ({"documents": ["text"]}, r"documents\[0\] is a str"),
        ({"enable_thinking": object()}, r"variables\['enable_thinking'\] is a object"),
    ],
)
def test_arguments_that_are_not_json_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(NanollamaError, match=words):
        render("", **options)


def test_a_special_token_or_template_that_is_no_text_is_refused() -> None:
    with pytest.raises(NanollamaError, match="bos_token is 3"):
        ChatTemplate("", bos_token=3)  # type: ignore[arg-type]
    with pytest.raises(NanollamaError, match="rag is None"):
        ChatTemplate({"rag": None})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("a\n{% if %}", "line 2: Expected an expression"),
        ("a\nb\n{{ messages[0].content.x.y }}", "line 3: .*has no attribute 'x'"),
        ("{% for m in messages %}\n{{ raise_exception('no ' + m.role) }}{% endfor %}", "line 2: no user"),
        ("\n\n{{ 1 // 0 }}", "line 3: .*zero"),
        ("{{ nothing() }}", "line 1: 'nothing' is undefined"),
        ("{% endfor %}", "line 1: "),
        ("\n{{ 'a' | nofilter }}", "line 2: No filter named 'nofilter'"),
    ],
)
def test_errors_of_a_template_name_its_line(source: str, words: str) -> None:
    with pytest.raises(NanollamaError, match="chat template: " + words):
        render(source)
