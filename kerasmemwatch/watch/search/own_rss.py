"""By how much looks of ours raise RSS, which is no growth of the program's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kerasmemwatch.leaks.evidence.collector import rss_bytes
from kerasmemwatch.sampling.recorder import Recorder

__all__ = ["OwnRss", "own_rss_bytes"]

_all_bytes = 0


def own_rss_bytes() -> int:
    """By how much RSS of this process rose in all counts and looks."""
    return _all_bytes


class OwnRss:
    """Counts what the looks of one series raised.

    Attributes:
        num_bytes: All of it.
    """

    def __init__(self) -> None:
        self.num_bytes = 0

    @contextmanager
    def counted(self, recorder: Recorder) -> Iterator[None]:
        """Count the rise of RSS within the block, also if it raises, and tell the run of it."""
        global _all_bytes
        before = rss_bytes()
        try:
            yield
        finally:
            after = rss_bytes()
            rise = 0 if before is None or after is None else max(0, after - before)
            self.num_bytes += rise
            _all_bytes += rise
            if rise:
                recorder.add_own_rise(rise)
