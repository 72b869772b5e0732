"""Other right ways to make a tensor of mapped bytes."""

import mmap
from typing import BinaryIO

import torch

from nanollama.checkpoint.safetensors import Entry


def _tensor__bytes_first(memory: mmap.mmap, file: BinaryIO, entry: Entry) -> torch.Tensor:
    """all of the mapping as bytes, a slice of it, seen as another dtype; at an odd address a clone of the slice"""
    raw = torch.frombuffer(memory, dtype=torch.uint8)[entry.begin : entry.end]
    if entry.begin % entry.dtype.itemsize:
        raw = raw.clone()
    return raw.view(entry.dtype).view(entry.shape)


def _tensor__view_of_memory(memory: mmap.mmap, file: BinaryIO, entry: Entry) -> torch.Tensor:
    """a memoryview; what can't be mapped is sliced out of the mapping"""
    if 0 in entry.shape:
        return torch.zeros(entry.shape).to(entry.dtype)
    if entry.begin % entry.dtype.itemsize:
        return torch.frombuffer(bytearray(memory[entry.begin : entry.end]), dtype=entry.dtype).view(entry.shape)
    return torch.frombuffer(memoryview(memory)[entry.begin : entry.end], dtype=entry.dtype).view(entry.shape)
