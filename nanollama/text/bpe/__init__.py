"""Byte-pair merging, byte-level BPE with its patterns, and the files of both.

Imports errors and, for the library's errors, text.folder.tokenizer_json; no other kind of tokenizer.
"""
