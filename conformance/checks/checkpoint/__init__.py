"""Checks of loading and exporting checkpoint folders belong here.

Must not import what `conformance.checks` must not.
"""
