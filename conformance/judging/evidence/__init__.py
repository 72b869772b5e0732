"""Comparisons of values with the truth, and the requirements that each covers. May not import `judging.wire`."""
