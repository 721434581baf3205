"""What ``trace="auto"`` costs a whole run, against a fit without a watch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["run_cost"]


def run_cost(plain_s: Sequence[float], runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median run's cost, with its parts, in seconds.

    A fit's first steps are slower than later ones without anybody's doing. What a traced step took longer is therefore
    counted from what that very step would have taken: the median of ordinary steps, times what this step took of that
    in a fit without a watch.

    Args:
        plain_s: Of a fit without a watch, what each step took.
        runs: Fits that were watched: ``step_s`` of each step, which were ``traced``, which are ``ordinary``, what the
            watch took around the traced ones and before them (``capture_s``), and all else once (``once_s``).

    Example:
        >>> run = {"step_s": [9, 4, 1, 1], "traced": [2], "ordinary": [3, 4], "capture_s": 0.5, "once_s": 0.25}
        >>> run_cost([9, 3, 1, 1], [run])
        {'auto_s': 1.75, 'longer_s': 1.0, 'capture_s': 0.5, 'once_s': 0.25, 'traced': [2]}
    """
    costs = []
    for run in runs:
        usual = statistics.median(run["step_s"][step - 1] for step in run["ordinary"])
        plain = statistics.median(plain_s[step - 1] for step in run["ordinary"])
        longer_s = sum(max(0.0, run["step_s"][step - 1] - usual * plain_s[step - 1] / plain) for step in run["traced"])
        parts = {"longer_s": longer_s, "capture_s": run["capture_s"], "once_s": run["once_s"]}
        costs.append({"auto_s": sum(parts.values()), **parts, "traced": run["traced"]})
    return sorted(costs, key=lambda cost: cost["auto_s"])[len(costs) // 2]
