"""Quantized tensors, the modules that hold them, and the formats that a whole file or a loaded model gets.

Imports torch, `errors`, `quant.formats` and `kernels`; never `model`, `checkpoint`, or anything above.

A tensor is its bytes (uint8), a format and a shape. A row (the last dimension) is whole blocks; rows follow each other. The
value of a stored weight *is* the float32 number that its format decodes to; float64 is that number widened.
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
