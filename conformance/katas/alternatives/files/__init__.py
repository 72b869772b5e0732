"""Other right answers of the katas about files: headers, names, and tokenizers on disk; they import the runtime alone."""
