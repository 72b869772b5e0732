"""Where a model is: a local file or folder, or a hub id that is downloaded once and then found in the cache.

The client is `huggingface_hub`: it verifies sizes, shows progress on stderr, retries and resumes a dropped connection,
and keeps the files that are complete, so a second try fetches only the rest. What it raises, in one sentence each, is
this file's own part.
"""

import errno
import os
import re
from pathlib import Path

from nanollama.checkpoint.files import quote
from nanollama.errors import NanollamaError

# Everything the loader reads, and weights only as safetensors: a pickle is never even downloaded.
WANTED = [
    "*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
]
# Patterns cross folders, and some repositories hold the same weights again for other programs.
UNWANTED = ["*/*.safetensors", "consolidated*.safetensors"]

_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*", re.ASCII)  # it becomes part of a cache path
_FILE = re.compile(r".*\.(safetensors|gguf|bin|pth?|json)", re.IGNORECASE)


def resolve(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    offline: bool | None = None,
) -> Path:
    """The local path of a model: `source` itself if it exists, else the cached download of the id `org/name[@revision]`.

    revision: branch, tag or commit (default: main). cache_dir: default is the hub client's, see HF_HOME and
    HF_HUB_CACHE. offline: True never touches the network; None does what HF_HUB_OFFLINE says.
    """
    text = os.fspath(source)
    path = Path(os.path.expanduser(text))  # noqa: PTH111  # Path.expanduser raises for an unknown ~user
    if text and os.path.exists(path):  # noqa: PTH110  # Path.exists raises for a name that is too long
        if revision is not None:
            raise NanollamaError(f"{text} is a local path, which has no revision {quote(revision)}: leave it out")
        return path
    name, _, pinned = text.partition("@")
    if not _ID.fullmatch(name) or _FILE.fullmatch(name):
        raise NanollamaError(f"{quote(text)} does not exist: expected a local path or a hub id, org/name[@revision]")
    if pinned and revision not in (None, pinned):
        raise NanollamaError(f"{quote(text)} and revision {quote(revision)} disagree: give one of them")
    revision = pinned or revision or "main"
    if not _REVISION.fullmatch(revision):
        raise NanollamaError(f"revision {quote(revision)} is not a branch, tag or commit name")
    return _download(name, revision, cache_dir, offline)
