"""Katas: functions of the live runtime to write again, and tests that pass right answers and fail wrong ones.

It may import score.zoo, truth, models and what is below them; not report, diagnosis or judging.

katas.toml is the course, course.py reads it; exercises/ has the tests, alternatives/ other right answers, about_testing/ katas
whose target is no function of the runtime. stub.py cuts and inserts bodies; checking/ tests a learner's file in a child
process; pages/ prints the result; progress.py stores the progress; __main__.py is `nanollama kata`. laws/ holds the laws that
every kata must obey, testing/ the assertions for exercises, roadmap.py the lines of ROADMAP.md.
"""
