"""One module for each group of probes. May not import `judge_server`, which runs them, nor the rigged server."""
