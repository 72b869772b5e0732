"""Quantized tensors: every block format that GGUF files use, read exactly and, where we write it, written exactly.

A tensor is its bytes (uint8), a format and a shape. A row (the last dimension) is whole blocks; rows follow each other. The
value of a stored weight *is* the float32 number that its format decodes to; float64 is that number widened.

A matrix that stays quantized in memory is a `QuantTensor`; the modules that compute with one are in linear.py. Our own two
formats are in rowwise.py, and what makes them of a loaded model in own.py.
"""

from nanollama.quant.formats.table import FORMATS, find_format, format_of_type
from nanollama.quant.formats.tensor import decode_rows, dequantize, quantize, row_bytes, tensor_rows
from nanollama.quant.quant_tensor import QuantTensor

__all__ = [
    "FORMATS",
    "QuantTensor",
    "decode_rows",
    "dequantize",
    "find_format",
    "format_of_type",
    "quantize",
    "row_bytes",
    "tensor_rows",
]
