"""The conformance suite: proves a runtime layer by layer. Needs the clone; the wheel does not contain it."""
