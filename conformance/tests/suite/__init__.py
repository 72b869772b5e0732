"""Tests of the suite, in rooms like its own."""
