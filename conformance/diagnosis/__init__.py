"""From wrong values to their likely cause, and what a run could not have detected. May not import judging."""
