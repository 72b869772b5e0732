"""Things that servers get wrong, each as the rigged server with one method replaced, and the requirement that must catch it."""

from conformance.judging.wire.rigged.bugs import reporting as telling
from conformance.judging.wire.rigged.bugs import serving, streaming, writing
from conformance.judging.wire.rigged.bugs.registry import BUGS

__all__ = ["BUGS", "serving", "streaming", "telling", "writing"]
