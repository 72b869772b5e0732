"""Numerics: what an honest engine may differ by, measured; and what published acceptance rules make of the same engines."""
