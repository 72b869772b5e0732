"""One run of one engine against the requirements, from values to verdicts. No other room imports it."""
