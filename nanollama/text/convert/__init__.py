"""A tokenizer and chat template in the form of the other kind of checkpoint: folder to GGUF and back.

Imports every other room of text; only checkpoint.export and the commands import it.
"""
