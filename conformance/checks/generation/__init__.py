"""Checks of sampling, the generation loop, streamed text and the commands around them belong here.

Must not import what `conformance.checks` must not.
"""
