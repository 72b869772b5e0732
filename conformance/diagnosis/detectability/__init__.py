"""The smallest change of each config field that a run would detect. May not import judging."""
