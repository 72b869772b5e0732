"""Everything that `nanollama kata` prints about a check: pages, values, differences.

It must not import exercises or the zoo."""
