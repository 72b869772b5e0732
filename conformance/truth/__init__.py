"""Every source of true values belongs here (oracle, goldens, references, peers, cases), and the one comparison rule.

Imports requirements and models; must not import fuzz, numerics, verify, engines, checks, score, katas, report, diagnosis or
judging.
"""
