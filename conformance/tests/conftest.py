"""What every test of the suite shares: threads, seeds, and the folder of real files."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

os.environ.pop("HF_HUB_OFFLINE", None)  # read when huggingface_hub is imported, later; the tests bring their own hub
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job, whose children would ignore Ctrl-C too
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # the run is parallel by process (pytest-xdist)
settings.register_profile("suite", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real checkpoints, tokenizers and templates, from NANOLLAMA_DATA."""
    folder = os.environ.get("NANOLLAMA_DATA")
    if not folder:
        pytest.skip("NANOLLAMA_DATA is not set: this check needs the folder of real checkpoints and tokenizers")
    return Path(folder)
