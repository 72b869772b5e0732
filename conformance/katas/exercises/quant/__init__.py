"""The tests of the katas about block formats; they may not import each other."""
