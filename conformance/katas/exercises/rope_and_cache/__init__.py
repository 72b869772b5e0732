"""The tests of the katas about rotary positions and the cache; they may not import each other."""
