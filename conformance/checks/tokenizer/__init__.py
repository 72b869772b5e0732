"""Checks of tokenizers belong here: algorithms, added tokens, files of folders, metadata of GGUF.

Must not import what `conformance.checks` must not.
"""
