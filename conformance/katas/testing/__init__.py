"""The assertions, goldens and counters that exercises import.

It must not import the laws, the zoo or pytest: exercises run in the learner's process."""
