"""A checkpoint folder that every command accepts: a family's tiny model, a tokenizer of single characters, a chat template.

Every printable ASCII character, space and newline is one token, so that prompts can be counted by hand.
"""

import string
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from conformance.models.fixtures import fixture_config, write_fixture

SPECIAL = ("<pad>", "<s>", "</s>")
LETTERS = string.ascii_letters + string.digits + string.punctuation + " \n"
TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.role[0] }}]{{ m.content }}{% endfor %}[a]"


def write_small_model(folder: Path, template: str | None = TEMPLATE, **changes: Any) -> Path:
    """Write the folder; `changes` are those of config.json."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *LETTERS])}
    config = fixture_config("LlamaForCausalLM", **{"vocab_size": len(vocabulary), **changes})
    write_fixture(folder, config)
    tokenizer: Any = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.decoder = Fuse()
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder
