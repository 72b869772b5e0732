"""A small text server that passes all probes, and copies of it with one bug each.

`model` is what it serves, `writer`, `answers` and `server` are its parts, `bugs` replaces single methods of them.
"""
