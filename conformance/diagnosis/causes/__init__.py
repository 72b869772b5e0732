"""From "this module is wrong" to what is likely wrong with it; `likely_causes` is the way in. May not import judging."""
