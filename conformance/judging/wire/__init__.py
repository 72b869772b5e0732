"""The wire: does a client get what it expects from a text server?

`judge_server(engine, truth)` asks an OpenAI-compatible server everything that the probes beside this file ask, and files one
result per requirement and endpoint. `truth`, the checkpoint that it serves, lets log-probabilities be compared with those
of the runtime in float64.
"""

from conformance.judging.wire.judging import judge_server

__all__ = ["judge_server"]
