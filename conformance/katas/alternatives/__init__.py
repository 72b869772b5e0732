"""Right answers that look different, one file a kata: a kata's tests must accept every one of them.

A function's body stands in for the target's; its docstring says how it differs. Where a kata has several targets the name is
`target__how`, dots as underscores, and functions of the same `how` stand in together.
"""
