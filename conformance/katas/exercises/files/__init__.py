"""The tests of the katas about files: headers, names, and tokenizers on disk; they may not import each other."""
