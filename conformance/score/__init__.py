"""The suite's own score: how many seeded bugs its checks kill, whether they name the right place, what they flag wrongly.

    python -m conformance score [--budget 60] [--area rope] [--name BUG …] [--mutants 300] [--json [FILE]] [--write]

Every bug of the zoo is seeded into a fork of this process, and the checks that can see it run in their order until one fails.
*Killed*: a check failed. *Localised*: the place that this first check named is the one that the zoo says is wrong. Three
scores, never mixed: real semantic faults, mechanical mutants, precision policies. Decoys, which are reported as bugs somewhere
and are none, must pass every check, and honest variants of the runtime must stay within the measured noise floor.

Engines that are plainly broken are judged in every run: if one of them passes, the score is void and the exit status 2.
It is 1 where something survives without an explanation, is flagged wrongly, or is worse than the published score says.
"""

import time

STARTED = time.perf_counter()  # before torch is imported: a budget includes that
