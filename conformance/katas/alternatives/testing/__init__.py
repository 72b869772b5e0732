"""Other right answers of the katas about writing tests and finding faults; they import the runtime alone."""
