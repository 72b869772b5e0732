"""Comparisons with other programs that do the same work belong here, each run as a command.

Must not import what `conformance.truth` must not.
"""
