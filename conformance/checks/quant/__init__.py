"""Checks of block formats and of quantized tensors, modules and files belong here.

Must not import what `conformance.checks` must not.
"""
