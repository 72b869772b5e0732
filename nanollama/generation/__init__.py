"""Logits to ids to pieces of text: requests, the sampling functions, the state of a row, and the one loop.

Imports errors, model and text; never checkpoint, lm, serve or cli.
"""
