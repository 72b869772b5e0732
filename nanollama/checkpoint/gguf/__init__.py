"""The GGUF format, read and written: values, tensors, their names, and the config that the metadata stand for.

Imports the rest of checkpoint (not export), quant and model; never text, generation, lm or cli.
"""
