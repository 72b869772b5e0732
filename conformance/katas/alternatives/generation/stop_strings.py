"""Other right ways to find stop strings."""

from collections.abc import Sequence

from nanollama.text.detokenizer import StopStrings, first_stop, unfinished


def first_stop__by_place(text: str, stops: Sequence[str]) -> tuple[int, str | None]:
    """every place from the left, shorter stop strings first"""
    for begin in range(len(text)):
        for stop in sorted(stops, key=len):
            if text.startswith(stop, begin):
                return begin, stop
    return len(text), None


def unfinished__by_length(text: str, stops: Sequence[str]) -> int:
    """every beginning of every stop string, the longest that the text ends with"""
    lengths = [n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
    return len(text) - max(lengths, default=0)


def StopStrings__release__in_two_steps(self: StopStrings, text: str, final: bool) -> str:
    """first what may go out, then whether it is the end"""
    if self.stopped:
        return ""
    begin, stop = first_stop(text, self.stops)
    free = len(text) if final else unfinished(text, self.stops)
    if stop is None or begin > free:
        out, self._held = text[:free], text[free:]
        return out
    self.stopped = stop
    self._held = ""
    return text[:begin]
