"""The correct answers of a server: the checkpoint in float64, measured floors, ties. May not import the rigged server."""
