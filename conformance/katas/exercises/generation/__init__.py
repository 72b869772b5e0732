"""The tests of the katas about generation: the loop, text streams, chat; they may not import each other."""
