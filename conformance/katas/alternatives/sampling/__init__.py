"""Other right answers of the katas about sampling; they import the runtime alone."""
