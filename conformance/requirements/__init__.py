"""The numbered requirements and the records of results. Imports nothing of the suite."""
