"""Other right answers of the katas about rotary positions and the cache; they import the runtime alone."""
