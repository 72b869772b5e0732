"""The command line: one file per command, the table of options and settings, and everything that is printed.

Imports any room of nanollama; no room imports it, and it never imports conformance (cli/suite.py starts it as a process).
"""
