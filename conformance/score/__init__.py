"""The suite's own score: how many seeded bugs its checks kill, whether they name the right place, what they flag wrongly.

It may import checks, numerics (not numerics.acceptance) and everything below them; not katas, report, diagnosis or judging.

    python -m conformance score [--budget 60] [--area rope] [--name BUG …] [--mutants 300] [--json [FILE]] [--write]

Every bug of the zoo is seeded into a fork of this process, and the checks that can see it run in order until one fails.
*Killed*: a check failed. *Localised*: the place that this first check names matches the zoo entry's `module`. There are three
separate scores: real semantic faults, mechanical mutants, precision policies. Decoys (correct code that was reported as a bug)
must pass every check, and honest variants of the runtime must stay within the measured noise floor.

Plainly broken engines are judged in every run: if one of them passes, the score is void and the exit status is 2.
The exit status is 1 if an unexplained bug survives, something correct is flagged, or the score is below the published one.
"""

import time

STARTED = time.perf_counter()  # before torch is imported: a budget includes that
