"""Faster implementations of functions that the model and the quantized modules define, and the choice between them.

Imports torch, `errors` and `quant.formats`; never the model, the modules of `quant`, or anything above.
"""
