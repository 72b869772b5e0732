"""Which chat template and which special tokens a checkpoint's folder holds; transformers is the oracle where it loads it."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from nanollama.errors import NanollamaError
from nanollama.text.chat.template import load_template

HI = [{"role": "user", "content": "Hi"}]
CONFIG: dict[str, Any] = {
    "model_max_length": int(1e30),
    "add_bos_token": True,
    "bos_token": "<s>",
    "eos_token": {"__type": "AddedToken", "content": "</s>", "special": True},
    "pad_token": None,
    "image_token": "<img>",
    "added_tokens_decoder": {},
}


def write(folder: Path, **files: Any) -> Path:
    """Write files named like `chat_template__jinja`, values other than text as JSON, and a tiny tokenizer."""
    peer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    peer.save(str(folder / "tokenizer.json"))
    for name, value in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return folder


def named(folder: Path, **templates: str) -> Path:
    """Write additional_chat_templates/NAME.jinja."""
    (folder / "additional_chat_templates").mkdir()
    for name, text in templates.items():
        (folder / "additional_chat_templates" / f"{name}.jinja").write_text(text, encoding="utf-8")
    return folder


def check_as_transformers(folder: Path, tools: Any = None) -> None:
    peer = PreTrainedTokenizerFast.from_pretrained(folder)
    template = load_template(folder)
    assert template is not None
    assert template.special_tokens == peer.special_tokens_map
    expected = peer.apply_chat_template(HI, tools=tools, tokenize=False)
    assert template.render(HI, tools=tools, add_generation_prompt=False) == expected


SHOW = "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ image_token }}"


def test_the_template_in_the_config_is_used(tmp_path: Path) -> None:
    write(tmp_path, tokenizer_config__json=CONFIG | {"chat_template": SHOW})
    check_as_transformers(tmp_path)
    template = load_template(tmp_path)
    assert template is not None
    assert template.render(HI) == "<s></s><img>"


def test_a_list_of_named_templates_in_the_config_is_used(tmp_path: Path) -> None:
    pairs = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]
    write(tmp_path, tokenizer_config__json=CONFIG | {"chat_template": pairs})
    check_as_transformers(tmp_path)
    check_as_transformers(tmp_path, tools=[{"name": "f"}])


def test_the_file_wins_over_the_config(tmp_path: Path) -> None:
    write(tmp_path, tokenizer_config__json=CONFIG | {"chat_template": "C"}, chat_template__jinja="F{{ bos_token }}\r\n\n")
    check_as_transformers(tmp_path)


def test_additional_templates_join_the_file(tmp_path: Path) -> None:
    write(tmp_path, tokenizer_config__json=CONFIG | {"chat_template": "C"}, chat_template__jinja="F")
    named(tmp_path, tool_use="T", rag="R")
    check_as_transformers(tmp_path)
    check_as_transformers(tmp_path, tools=[{"name": "f"}])
    template = load_template(tmp_path)
    assert template is not None
    assert template.render(HI, chat_template="rag") == "R"


def test_an_additional_default_wins_over_the_file(tmp_path: Path) -> None:
    named(write(tmp_path, tokenizer_config__json=CONFIG, chat_template__jinja="F"), default="A")
    check_as_transformers(tmp_path)


def test_additional_templates_alone_replace_the_one_in_the_config(tmp_path: Path) -> None:
    named(write(tmp_path, tokenizer_config__json=CONFIG | {"chat_template": "C"}), tool_use="T")
    check_as_transformers(tmp_path, tools=[{"name": "f"}])
    template = load_template(tmp_path)
    assert template is not None
    with pytest.raises(NanollamaError, match="there is no chat template 'default'"):
        template.render(HI)
    with pytest.raises(ValueError, match="no default"):
        PreTrainedTokenizerFast.from_pretrained(tmp_path).apply_chat_template(HI, tokenize=False)


def test_an_older_map_of_special_tokens_wins_where_the_config_lists_no_added_tokens(tmp_path: Path) -> None:
    token_map = {"bos_token": {"content": "<b>"}, "unk_token": "<unk>"}
    config = {key: value for key, value in CONFIG.items() if key != "added_tokens_decoder"}
    write(tmp_path, tokenizer_config__json=config | {"chat_template": SHOW}, special_tokens_map__json=token_map)
    check_as_transformers(tmp_path)
    write(tmp_path, tokenizer_config__json=CONFIG | {"chat_template": SHOW})
    check_as_transformers(tmp_path)


def test_special_tokens_of_the_model_are_found_by_name(tmp_path: Path) -> None:
    extra = {"extra_special_tokens": {"boi_token": "<boi>", "clock": "<clock>"}}
    write(tmp_path, tokenizer_config__json=CONFIG | extra | {"chat_template": "{{ boi_token }}{{ clock }}"})
    check_as_transformers(tmp_path)


def test_the_file_of_older_processors_is_the_last_resort(tmp_path: Path) -> None:
    write(tmp_path, chat_template__json={"chat_template": "J"})
    template = load_template(tmp_path)
    assert template is not None
    assert template.render(HI) == "J"
    write(tmp_path, tokenizer_config__json=CONFIG | {"chat_template": "C"})
    check_as_transformers(tmp_path)


@pytest.mark.parametrize("files", [{}, {"tokenizer_config__json": CONFIG}, {"chat_template__json": {}}], ids=str)
def test_a_folder_without_a_template_has_none(tmp_path: Path, files: dict[str, Any]) -> None:
    assert load_template(write(tmp_path, **files)) is None


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"tokenizer_config__json": "{"}, "tokenizer_config.json is not acceptable JSON"),
        ({"tokenizer_config__json": "[1]"}, "tokenizer_config.json holds a JSON list"),
        ({"tokenizer_config__json": "[" * 10**5}, "tokenizer_config.json is not acceptable JSON"),
        ({"tokenizer_config__json": '{"x": ' + "9" * 5000 + "}"}, "tokenizer_config.json is not acceptable JSON"),
        ({"tokenizer_config__json": {"chat_template": 3}}, "chat_template is a int"),
        ({"tokenizer_config__json": {"chat_template": ["x"]}}, "a list of {name, template}"),
        ({"tokenizer_config__json": {"chat_template": [{"name": "default"}]}}, "a list of {name, template}"),
        ({"tokenizer_config__json": {"chat_template": [{"name": [], "template": ""}]}}, "a list of {name, template}"),
        ({"tokenizer_config__json": {"chat_template": {"default": 3}}}, "default is 3"),
        ({"chat_template__jinja": "x", "special_tokens_map__json": "nope"}, "special_tokens_map.json is not acceptable JSON"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, files: dict[str, Any], words: str) -> None:
    with pytest.raises(NanollamaError, match=words):
        load_template(write(tmp_path, **files))


def test_a_template_file_that_is_no_text_or_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(NanollamaError, match=r"chat_template.jinja is not UTF-8"):
        load_template(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.jinja").mkdir()
    with pytest.raises(NanollamaError, match=r"chat_template.jinja is not a plain file"):
        load_template(tmp_path)


def test_a_huge_template_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "chat_template.jinja").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(NanollamaError, match="larger than"):
        load_template(tmp_path)


def test_special_tokens_of_odd_kinds_are_left_out(tmp_path: Path) -> None:
    odd = {"bos_token": 3, "eos_token": {"content": None}, "sep_token": ["x"], "extra_special_tokens": ["<e>"]}
    template = load_template(write(tmp_path, tokenizer_config__json=odd | {"chat_template": "x"}))
    assert template is not None
    assert template.special_tokens == {}
