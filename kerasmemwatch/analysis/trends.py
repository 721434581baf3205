"""How fast a run's memory grows: slopes of its samples, with the data they rest on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.records.growth import Growth
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.records.samples import Samples

__all__ = ["FEWEST_SAMPLES", "find_growth", "median_slope", "worker_name"]

# A slope needs this many samples after the warm-up; it uses all pairs, so more than _MOST_SAMPLES are thinned out.
FEWEST_SAMPLES = 10
_MOST_SAMPLES = 400
_WARM_UP = 0.1
# The 97.5 % quantile of the normal distribution, for an interval of 95 %.
_NORMAL_97_5 = 1.959963984540054


def find_growth(run: RunInfo, samples: Samples, workers: Sequence[tuple[RunInfo, Samples]] = ()) -> list[Growth]:
    """Median slopes of in-use bytes and RSS at the ends of training batches (of all batches if none trained).

    The slope is the Theil-Sen estimator with its 95 % interval (P. K. Sen, Journal of the American Statistical
    Association 63, 1968), after the first tenth of the rows, which is warm-up.

    With several workers, each one's RSS is judged by itself: the maximum over workers falls when one ends, and hides
    growth in a smaller one.
    """
    rows = _trained(samples)
    found = []
    in_use = samples.get("device_in_use_bytes")
    for index, device in enumerate(run.devices):
        if in_use is not None and index < in_use.shape[1]:
            found.append(_slope(f"device_in_use_bytes {device.name}", samples["step"][rows], in_use[rows, index]))
    for name, own in [(f" {worker_name(each)}", own) for each, own in workers] or [("", samples)]:
        if "host_rss_bytes" in own:
            rows = _trained(own)
            found.append(_slope(f"host_rss_bytes{name}", own["step"][rows], own["host_rss_bytes"][rows]))
    return [growth for growth in found if growth is not None]


def _trained(samples: Samples) -> NDArray[np.intp]:
    trained = samples.get("stage") == "train" if "stage" in samples else np.zeros(0, bool)
    # Bytes in use after a step that an exception ended do not show what a whole step leaves.
    ended = samples["ended"] != 0 if "ended" in samples else np.ones(samples.num_samples, bool)
    return np.flatnonzero(trained & ended) if np.any(trained) else np.flatnonzero(ended)


def worker_name(run: RunInfo) -> str:
    """A worker's name; for an ordinary run, the run's name."""
    return run.worker.name if run.worker else run.name


def _slope(series: str, steps: NDArray[Any], values: NDArray[Any]) -> Growth | None:
    known = np.flatnonzero(~np.isnan(values.astype(float)))
    known = known[int(len(known) * _WARM_UP) :]
    if len(known) < FEWEST_SAMPLES:
        return None
    thinned = known[np.unique(np.linspace(0, len(known) - 1, _MOST_SAMPLES).astype(int))]
    found = median_slope(steps[thinned].astype(float), values[thinned].astype(float))
    return found and Growth(series, *found, len(known))


def median_slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float] | None:
    """The Theil-Sen slope and the two ends of its 95 % interval; ``None`` if values of ``x`` repeat too much."""
    rise, run = y[:, np.newaxis] - y, x[:, np.newaxis] - x
    slopes = np.sort(rise[run > 0] / run[run > 0])
    # Sen's equation 2.6: the variance of the number of rising pairs, less the share of ties.
    ties = [np.unique(each, return_counts=True)[1] for each in (x, y)]
    variance = (_pairs_spread(np.array([len(x)])) - sum(map(_pairs_spread, ties))) / 18
    if not len(slopes) or variance < 0:
        return None
    reach = _NORMAL_97_5 * variance**0.5
    low = max(round((len(slopes) - reach) / 2) - 1, 0)
    high = min(round((len(slopes) + reach) / 2), len(slopes) - 1)
    return float(np.median(slopes)), float(slopes[low]), float(slopes[high])


def _pairs_spread(sizes: NDArray[np.intp]) -> float:
    return float(np.sum(sizes * (sizes - 1) * (2 * sizes + 5)))
