"""Engines in another process: a text server over HTTP, a program over its stdin and stdout.

May not import any adapter.
"""
