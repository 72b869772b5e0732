"""Checks of chat templates belong here: messages, rendering, ids.

Must not import what `conformance.checks` must not.
"""
