"""Quantized tensors: every block format that GGUF files use, read exactly and, where we write it, written exactly.

A tensor is its bytes (uint8), a format and a shape. A row (the last dimension) is whole blocks; rows follow each other. The
value of a stored weight *is* the float32 number that its format decodes to; float64 is that number widened.
"""

from nanollama.quant.table import FORMATS, find_format, format_of_type
from nanollama.quant.tensor import decode_rows, dequantize, quantize, row_bytes, rows_of

__all__ = ["FORMATS", "decode_rows", "dequantize", "find_format", "format_of_type", "quantize", "row_bytes", "rows_of"]
