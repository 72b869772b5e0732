"""The tests of the katas about the layers of a transformer; they may not import each other."""
