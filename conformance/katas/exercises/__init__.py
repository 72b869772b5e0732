"""The tests of the katas, by area; test_NAME.py belongs to the kata NAME.

They import conformance.katas.testing and the runtime; never each other, pytest or fixtures.
"""
