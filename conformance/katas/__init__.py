"""Katas: functions of the live runtime to write again, against tests that a right answer passes and a wrong one doesn't.

How to add one, say `min_p`:

1. `conformance/katas/exercises/sampling/test_min_p.py`: plain functions `test_…()` without fixtures, in teaching order. First
   inputs that a person can redo on paper, then what holds for any input, then real numbers (testing/golden.py). A test's
   docstring is the sum on paper; the learner reads it when the test fails. `answers(function, *inputs, want=…)` asks and
   judges, `refuses(…, error=…, naming=…)` wants an error, `agree(name, got, want)` compares two values (testing/compare.py).
   Let the parameter under study dominate: an eps as large as the mean square, three axes of different sizes, probabilities
   of 1/2, 1/4, 1/8. Never import another test's module.
2. `conformance/katas/katas.toml`: a table [kata.min_p] in its place in the course; course.py says what the fields are. Test
   names, docstrings and hints are all that a learner reads; no hint may hold a line of the solution.
3. Mistakes, four or more: names of zoo entries (`conformance/score/zoo/bugs/AREA.toml`) whose edits all lie in the targets.
   What is missing there is added there, source "own"; its `what` is the sentence after "looks like:". What no model would
   show (a number too many that is masked) is no bug of the zoo: it stands in about_testing/mistakes.toml. Every other
   semantic bug and every mutant of the targets must be killed too, or stand under `elsewhere` or `equivalent` with the reason.
4. `conformance/katas/alternatives/sampling/min_p.py`: two right bodies or more that look different (see its __init__.py).
5. `python -m conformance.katas.laws min_p` until it says that all laws hold; `python -m pytest conformance/katas` as well.

A kata on something else than a function of the runtime (write_a_test) has its module and its mistakes in about_testing/.

What is where: course.py reads katas.toml; stub.py cuts and inserts bodies; check.py starts child.py, which is running.py (one file
tested in its process) and diagnose.py (which mistake it looks like); page.py shows it; progress.py remembers; __main__.py is
`nanollama kata`; laws.py is what every kata must hold to. For tests: compare.py, golden.py and programs.py.
"""
