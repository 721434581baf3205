"""Runs that have not ended properly: how full the host was, and what had grown. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.analysis.host_limit import is_near_limit
from kerasmemwatch.records.ending import Ending
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.records.samples import Samples

__all__ = ["find_ending"]

# The first rows, and the first tenth, are warm-up. A jump within the last rows may happen once more.
_WARM_UP_ROWS, _WARM_UP, _NEWEST = 2, 0.1, 16
# What is less than this share of the host's memory in use has not grown.
_LEAST_SHARE = 0.01


def find_ending(run: RunInfo, samples: Samples) -> Ending | None:
    """How a run ended that was read while its files were still open; ``None`` if it ended properly.

    Nor has a run whose last step was left by an exception ended abruptly.
    """
    if not run.ending or not samples.num_samples or ("ended" in samples and samples["ended"][-1] == 0):
        return None
    steps, worker = samples["step"], run.worker.name if run.worker else ""
    rss = _series(samples, "host_rss_bytes")
    known = np.flatnonzero(~np.isnan(rss))
    limit = run.host.get("limit_bytes")
    if not len(known):
        return Ending(run.ending, int(steps[-1]), worker)
    children = _series(samples, "host_children_uss_bytes")
    children = children[~np.isnan(children)]
    used = float(rss[known[-1]]) + (float(children[-1]) if len(children) else 0.0)
    first = max(_WARM_UP_ROWS, int(samples.num_samples * _WARM_UP))
    has_more = first < samples.num_samples - 1
    found = sorted(_grown(run, samples, first), key=lambda each: -each[1]) if has_more else []
    return Ending(
        run.ending,
        int(steps[-1]),
        worker,
        int(used),
        limit,
        str(run.host.get("limit_source") or ""),
        is_near_limit(used, limit, _rise(samples, rss)) if limit else None,
        tuple((name, size) for name, size in found if size >= _LEAST_SHARE * used),
        int(steps[first]) if has_more else None,
    )


def _grown(run: RunInfo, samples: Samples, first: int) -> Iterator[tuple[str, int]]:
    series = [("host RSS", _series(samples, "host_rss_bytes"))]
    series += [("memory of child processes", _series(samples, "host_children_uss_bytes"))]
    in_use = samples.get("device_in_use_bytes")
    if in_use is not None and in_use.ndim == 2:
        columns = zip(run.devices, in_use.T, strict=False)
        series += [(f"{device.name} in use", column) for device, column in columns]
    for name, values in series:
        known = values[first:][~np.isnan(values[first:])]
        if len(known) > 1:
            yield name, int(known[-1] - known[0])


def _rise(samples: Samples, rss: NDArray[np.float64]) -> float:
    """The most that was added by one of the last epochs, the first excepted, or from one of the last rows to the next.

    A killed process has no row for what it added last.
    """
    known = np.flatnonzero(~np.isnan(rss))
    jumps = np.diff(rss[known[known >= _WARM_UP_ROWS]])[-_NEWEST:]
    found = [float(jumps.max(initial=0.0))]
    epochs = samples["epoch"] if "epoch" in samples else np.full(len(rss), np.nan)
    known = known[~np.isnan(epochs[known])]
    last = known[np.append(np.flatnonzero(np.diff(epochs[known])), len(known) - 1)] if len(known) else known
    found += np.diff(rss[last])[-2:].tolist()
    return max(found)


def _series(samples: Samples, name: str) -> NDArray[np.float64]:
    found = samples.get(name)
    return np.full(samples.num_samples, np.nan) if found is None else np.asarray(found, np.float64)
