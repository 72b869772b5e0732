"""Other right answers of the katas about generation: the loop, text streams, chat; they import the runtime alone."""
