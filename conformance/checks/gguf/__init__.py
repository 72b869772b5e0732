"""Checks of GGUF files belong here: bytes, metadata, names, whole models.

Must not import what `conformance.checks` must not.
"""
