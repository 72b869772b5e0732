"""A text server judged as its client sees it; `judge_server` is the way in. May not import `judging.evidence`."""
