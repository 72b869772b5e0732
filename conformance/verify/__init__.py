"""Comparisons of whole models belong here: with goldens and transformers, of two models, by likelihood, by speed.

Imports models, truth, fuzz and numerics; must not import engines, checks, score, katas, report, diagnosis or judging.
"""
