"""The table of all formats, by name and by the type number that a GGUF file stores (`enum ggml_type` in ggml.h)."""

from nanollama.errors import NanollamaError, unknown_name
from nanollama.quant.formats.codebook import CODEBOOK
from nanollama.quant.formats.format import Format
from nanollama.quant.formats.plain import PLAIN
from nanollama.quant.formats.superblock import SUPERBLOCK
from nanollama.quant.formats.ternary import TERNARY
from nanollama.quant.formats.uniform import UNIFORM

FORMATS = {format.name: format for format in (*PLAIN, *UNIFORM, *SUPERBLOCK, *CODEBOOK, *TERNARY)}
BY_TYPE = {format.id: format for format in FORMATS.values()}

# Types that exist and can't be read here; an error with the name helps more than one with the number.
UNREAD = {
    4: "Q4_2 (removed from ggml)",
    5: "Q4_3 (removed from ggml)",
    9: "Q8_1 (never stored in files)",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    21: "IQ3_S",
    22: "IQ2_S",
    29: "IQ1_M",
    31: "Q4_0_4_4 (removed from ggml)",
    32: "Q4_0_4_8 (removed from ggml)",
    33: "Q4_0_8_8 (removed from ggml)",
    36: "IQ4_NL_4_4 (removed from ggml)",
    37: "IQ4_NL_4_8 (removed from ggml)",
    38: "IQ4_NL_8_8 (removed from ggml)",
    40: "NVFP4",
    41: "Q1_0",
}


def find_format(name: str) -> Format:
    """The format of this name, in any case ("q4_k", "Q4_K"). Raises NanollamaError if there is none."""
    if name.upper() not in FORMATS:
        raise unknown_name("quantization format", name, FORMATS)
    return FORMATS[name.upper()]


def format_of_type(type_id: int) -> Format:
    """The format of a GGUF file's type number. Raises NanollamaError if there is none or it can't be read."""
    if type_id not in BY_TYPE:
        known = f", which is {UNREAD[type_id]}," if type_id in UNREAD else ""
        raise NanollamaError(
            f"ggml type {type_id}{known} can't be read; expected one of {', '.join(FORMATS)}; convert the file to one of these"
        )
    return BY_TYPE[type_id]
