"""Tests of nanollama/, in rooms like its own."""
