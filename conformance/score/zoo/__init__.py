"""The zoo: real bugs of real engines and mechanical mutants, as data (bugs/AREA.toml), and the code that seeds them.

It may import the runtime only; not checks, judges or katas.
"""
