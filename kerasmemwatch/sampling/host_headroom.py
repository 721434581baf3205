"""Warning that host memory is near its limit, before the kernel ends the process."""

from __future__ import annotations

import math
from typing import Any

from kerasmemwatch.analysis.host_limit import is_near_limit
from kerasmemwatch.errors import MemWatchError
from kerasmemwatch.faults import Faults
from kerasmemwatch.records.rows import Layout, Rows, column_indices
from kerasmemwatch.storage.sinks.base import Update
from kerasmemwatch.units import format_bytes

__all__ = ["HostHeadroom"]


class HostHeadroom:
    """Follows the RSS that rows hold already; warns once. As the last sink, it sees what has just been stored.

    Args:
        limit_bytes: What the process may use; ``None`` if unknown.
        source: Where the limit comes from.
        faults: Where to warn.
    """

    def __init__(self, limit_bytes: Any, source: Any, faults: Faults) -> None:
        self._limit = float(limit_bytes) if isinstance(limit_bytes, (int, float)) and limit_bytes > 0 else None
        self._source, self._faults = source, faults
        self._last_end: float | None = None
        self._rise = 0.0
        self._has_warned = False

    def write(self, update: Update) -> None:
        """Look at rows that have been stored."""
        self._look(_newest(update.layout, update.rows))

    def close(self) -> None:
        """Nothing is open."""

    def epoch_ended(self, layout: Layout, rows: Rows) -> bool:
        """Look at the rows at an epoch's end; return whether to store everything, because it warned."""
        rss_bytes = _newest(layout, rows)
        if self._last_end is not None:  # the first epoch's rise is warm-up
            self._rise = max(0.0, rss_bytes - self._last_end)
        self._last_end = rss_bytes
        return self._look(rss_bytes)

    def _look(self, rss_bytes: float) -> bool:
        limit = self._limit
        is_known = not (self._has_warned or limit is None or math.isnan(rss_bytes))
        if limit is None or not is_known or not is_near_limit(rss_bytes, limit, self._rise):
            return False
        self._has_warned = True
        source = f" ({self._source})" if self._source else ""
        added = f", and the last epoch added {format_bytes(self._rise)}" if self._rise else ""
        used = f"{rss_bytes / limit:.1%} of the limit of {format_bytes(limit)}{source} is in use{added}"
        self._faults.remark(
            "host memory",
            MemWatchError(used),
            "The recording is stored. If the process is killed, `kerasmemwatch show` says what had grown.",
        )
        return True


def _newest(layout: Layout, rows: Rows) -> float:
    columns = column_indices(layout, ["host_rss_bytes"]).get("host_rss_bytes", [])
    return float(rows[-1][columns[0]]) if columns and len(rows) else math.nan
