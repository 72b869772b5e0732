"""The types of whole GGUF files, as `--type` and llama.cpp name them; quant/mixes.py chooses the format of each tensor."""

from typing import NamedTuple

from nanollama.errors import unknown_name


class FileType(NamedTuple):
    """`number` is its number in `general.file_type` (`enum llama_ftype` in llama.h), `main` the format of most tensors."""

    number: int
    main: str


FILE_TYPES = {
    "f32": FileType(0, "F32"),
    "f16": FileType(1, "F16"),
    "bf16": FileType(32, "BF16"),
    "q8_0": FileType(7, "Q8_0"),
    "q4_0": FileType(2, "Q4_0"),
    "q4_1": FileType(3, "Q4_1"),
    "q5_0": FileType(8, "Q5_0"),
    "q5_1": FileType(9, "Q5_1"),
    "q4_k_s": FileType(14, "Q4_K"),
    "q4_k_m": FileType(15, "Q4_K"),
    "q5_k_s": FileType(16, "Q5_K"),
    "q5_k_m": FileType(17, "Q5_K"),
    "q6_k": FileType(18, "Q6_K"),
    "tq1_0": FileType(36, "TQ1_0"),
    "tq2_0": FileType(37, "TQ2_0"),
    "mxfp4_moe": FileType(38, "MXFP4"),
}


def find_file_type(name: str) -> FileType:
    """The file type of this name. Raises NanollamaError if there is none."""
    if name not in FILE_TYPES:
        raise unknown_name("file type", name, FILE_TYPES)
    return FILE_TYPES[name]
