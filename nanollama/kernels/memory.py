"""The C library's allocator, set up for a model on the CPU."""

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let the C library keep the memory of freed activations for the next ones, instead of returning it to the system.

    By default glibc returns every large block at once, and a prefill spends up to a fifth of its time in page faults to
    get it again (112,000 of them for 256 tokens of a 1.1B model). Blocks above 32 MB, such as converted weights, are still
    returned. This sets an option of the whole process, when a model is loaded on the CPU; other C libraries don't have it.
    """
    with suppress(OSError, AttributeError, TypeError):  # not glibc: macOS, musl, Windows
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
