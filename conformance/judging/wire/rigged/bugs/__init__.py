"""Bugs of servers, each as the rigged server with one method replaced, and the requirement that must detect it."""

from conformance.judging.wire.rigged.bugs import reporting, serving, streaming, writing
from conformance.judging.wire.rigged.bugs.registry import BUGS

__all__ = ["BUGS", "reporting", "serving", "streaming", "writing"]
