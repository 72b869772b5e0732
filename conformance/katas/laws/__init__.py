"""The laws that every kata must obey, with their trials and canaries.

Only tests and pages/picture.py import it."""
