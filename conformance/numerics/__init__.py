"""Numerics: the measured rounding differences of correct engines (the noise floor), and judgements by that floor.

It may import truth, models and requirements; not verify, engines, checks or score. acceptance/ is above score.
"""
