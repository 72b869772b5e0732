"""The zoo: real bugs of real engines, re-seeded in this runtime, so that the suite can be scored by what it catches."""
