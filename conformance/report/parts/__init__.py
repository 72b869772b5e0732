"""The parts of pages and tables, each computed from runs. May not import diagnosis or judging."""
