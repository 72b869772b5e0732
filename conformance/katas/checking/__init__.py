"""Run a kata's tests on a learner's file in a child process, and diagnose the result.

It must not import the laws or anything that prints."""
