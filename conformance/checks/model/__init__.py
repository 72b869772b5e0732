"""Checks of the model belong here: config, layers, positions, cache, precision.

Must not import what `conformance.checks` must not.
"""
