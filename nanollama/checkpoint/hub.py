"""Finds a model: a local file or folder, or a hub id that is downloaded once and then found in the cache.

The client is `huggingface_hub`: it verifies sizes, shows progress on stderr, retries and resumes a dropped connection,
and keeps complete files, so a second try fetches only the rest. This module turns its errors into one sentence each.
"""

import errno
import os
import re
from pathlib import Path

from nanollama.errors import NanollamaError, quote

# All files that the loader reads. Weights only as safetensors: a pickle is never downloaded.
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
# `*` matches slashes too, and some repositories hold the same weights again for other programs.
UNWANTED = ["*/*.safetensors", "consolidated*.safetensors"]

_NAME = r"[A-Za-z0-9_][\w.-]*"
_ID = re.compile(rf"({_NAME}/{_NAME})(?:@({_NAME}(?:/{_NAME})*))?", re.ASCII)  # both become part of a cache path
_FILE = re.compile(r".*\.(safetensors|gguf|bin|pth?|json)", re.IGNORECASE)


def resolve(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    offline: bool | None = None,
) -> Path:
    """The local path of a model: `source` itself if it exists, else the cached download of the id `org/name[@revision]`.

    revision: branch, tag or commit, default main. cache_dir: default is the hub client's (HF_HUB_CACHE, HF_HOME).
    offline: True uses the cache alone, None follows HF_HUB_OFFLINE. NanollamaError if there is no such model.
    """
    text = os.fspath(source)
    path = Path(os.path.expanduser(text))  # noqa: PTH111  # Path.expanduser raises for an unknown ~user
    if text and os.path.exists(path):  # noqa: PTH110  # Path.exists raises for a name that is too long
        if revision is not None:
            raise NanollamaError(f"{text} is a local path, which has no revision {quote(revision)}: leave it out")
        return path
    found = _ID.fullmatch(text if revision is None else f"{text}@{revision}")
    if not found or _FILE.fullmatch(text) or ".." in text:
        what = quote(text) if revision is None else f"{quote(text)} at revision {quote(revision)}"
        raise NanollamaError(f"{what} does not exist: expected a local path or a hub id, org/name or org/name@revision")
    return _download(found[1], found[2] or "main", cache_dir, offline)


def _download(name: str, revision: str, cache_dir: str | os.PathLike[str] | None, offline: bool | None) -> Path:
    from huggingface_hub import constants, snapshot_download  # the import takes 0.15 s; a local path needs none

    cache = Path(cache_dir or constants.HF_HUB_CACHE)
    offline = constants.HF_HUB_OFFLINE if offline is None else offline
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            cache_dir=cache,
            local_files_only=offline,
            allow_patterns=WANTED,
            ignore_patterns=UNWANTED,
        )
    except Exception as error:  # the classes depend on the client's version and its HTTP library
        reason = _explain(error, name, revision, offline)
        raise NanollamaError(f"{reason} (hub: {constants.ENDPOINT}, cache: {cache})") from error
    if not any(Path(folder).glob("*.safetensors")):
        raise NanollamaError(
            f"{name} holds no safetensors file at its top level, and other weights are not downloaded: choose a "
            f"repository with safetensors, or convert this one and give the folder (downloaded: {folder})"
        )
    return Path(folder)


def _explain(error: Exception, name: str, revision: str, offline: bool) -> str:
    """One sentence: the failure and the next step."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):  # a subclass of the next
        return f"{name} is gated: accept its terms on its hub page, then run `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{name} is neither a local path nor a model on the hub: check the name, or log in if it is private"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {quote(revision)}: check the name of the branch, tag or commit"
    if isinstance(error, errors.LocalEntryNotFoundError):
        reason = "offline mode is on (see HF_HUB_OFFLINE)" if offline else f"the hub gave no answer ({_brief(error)})"
        return (
            f"{name} is no local path and not completely in the cache, and {reason}: run `hf download {name} "
            "--local-dir FOLDER` on a connected machine and give that folder"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full while downloading {name}: free some space, or move the cache with HF_HOME"
    return f"downloading {name} failed ({_brief(error)}): try again, the files that are complete are kept"


def _brief(error: BaseException) -> str:
    """Class and first line of the cause of `error`."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}"
