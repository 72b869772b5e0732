"""Katas on something else than a function of the runtime. Their modules are here, with a right answer in each body, and so are
the mistakes one can make in them (mistakes.toml, written like the zoo's files), which are no bugs of the runtime."""
