"""Hostile input belongs here: valid files, damage to them, and the targets that must survive it.

Imports models and truth; must not import numerics, verify, engines, checks, score, katas, report, diagnosis or judging.
"""
