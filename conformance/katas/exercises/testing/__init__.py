"""The tests of the katas about writing tests and finding faults; they may not import each other."""
