"""Katas whose target is no function of the runtime: their modules, with a right answer in each body, and their mistakes
(mistakes.toml, in the format of the zoo's files), which are no bugs of the runtime."""
