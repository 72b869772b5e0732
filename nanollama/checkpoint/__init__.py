"""Bytes ↔ named tensors: files, the hub, safetensors, GGUF (gguf/), the names of both, and the export.

Imports errors, quant and model; only export.py imports text, and nothing here imports generation, lm or cli.
"""
