"""All tests of the runtime and of the suite."""
