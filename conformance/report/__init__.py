"""The report of a run: an HTML page, a table for the terminal, Markdown, a badge. May not import diagnosis or judging."""
