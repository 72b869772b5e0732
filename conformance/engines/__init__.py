"""Engines under test, one adapter each, and what they are run on.

May not import checks, score, katas, report, diagnosis or judging.
"""
