"""The tests of the katas about sampling; they may not import each other."""
