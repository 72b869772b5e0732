"""Other right answers of the katas about block formats; they import the runtime alone."""
