"""Other right answers of the katas about the layers of a transformer; they import the runtime alone."""
