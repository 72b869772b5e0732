"""Right answers that look different, one file per kata: a kata's tests must accept all of them.

A function's body replaces the target's; its docstring describes the difference. If a kata has several targets, the name is
`target__how`, with underscores for dots, and functions of the same `how` are used together.
"""
