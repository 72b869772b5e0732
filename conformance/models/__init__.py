"""The tiny models of the suite belong here: configs, derived weights, checkpoint folders, and strategies that draw them.

Imports requirements; must not import truth, fuzz, numerics, verify, engines, checks, score, katas, report, diagnosis or
judging.
"""
