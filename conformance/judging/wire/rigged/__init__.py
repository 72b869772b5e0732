"""A small text server that is right in everything that the probes ask, and the same with one thing wrong at a time.

`model` is what it serves, `writer`, `answers` and `server` are its parts, `bugs` replaces single methods of them.
"""
