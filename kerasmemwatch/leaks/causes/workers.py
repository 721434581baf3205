"""Child processes whose memory grows: what they keep, or what they copy of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from kerasmemwatch.leaks.causes.case import Case
from kerasmemwatch.leaks.verdicts.find import CHILDREN
from kerasmemwatch.probes.children import Child
from kerasmemwatch.records.growth import LeakFinding
from kerasmemwatch.units import format_bytes

__all__ = ["is_of_children", "worker_processes"]

# Of memory that became a forked child's own, what its RSS rose by is new; the rest had been shared with us.
_COPIED_SHARE = 0.5


def is_of_children(case: Case) -> bool:
    """Whether it is the memory of child processes that is to be explained."""
    return case.main.series.startswith(CHILDREN)


def worker_processes(case: Case) -> Iterator[LeakFinding]:
    """A finding if the memory of child processes grows."""
    if not is_of_children(case) or not case.children:
        return
    newest = case.children[-1]
    copied = _copied_share(case.children)
    kinds = Counter(child.kind for child in newest)
    what = ", ".join(f"{count:,} {_NAMES.get(kind, kind)}" for kind, count in kinds.most_common(3))
    largest = format_bytes(newest[0].uss_bytes) if newest else "unknown"
    evidence = f"Child processes: {what or 'none is left'}. The largest has {largest} of its own."
    if copied is not None:
        evidence += f" Of what they gained meanwhile, {copied:.0%} had been shared with this process before."
    is_copied = copied is not None and copied >= _COPIED_SHARE
    yield LeakFinding(
        cause="worker_processes",
        evidence=evidence,
        bytes_per_step=case.main.bytes_per_step,
        since_step=case.main.since_step,
        confidence=0.9 if copied is not None else 0.7,
        where="",
        fix=_COPIES if is_copied else _KEEPS,
        unit=case.main.unit,
        rate=case.main.rate,
        known_issue="pytorch #13246" if is_copied else "tensorflow #37026",
    )


_NAMES = {"forked": "forked from this process", "spawned": "of multiprocessing or joblib, started anew"}
_COPIES = (
    "Hold the data that workers read in NumPy arrays rather than lists or dicts: each use of a Python object writes to "
    "its reference count, which copies the page; or start the workers anew each epoch."
)
_KEEPS = (
    "Keep nothing in the objects and modules that workers use from task to task; or have the pool replace them, "
    "multiprocessing.Pool(..., maxtasksperchild=100)."
)


def _copied_share(listings: Sequence[Sequence[Child]]) -> float | None:
    """Share of what forked children gained that they had shared before; ``None`` if that can't be told."""
    if len(listings) < 2:
        return None
    before, after = ([child for child in each if child.kind == "forked"] for each in (listings[0], listings[-1]))
    if not before or len(before) != len(after):
        return None
    own = sum(child.uss_bytes for child in after) - sum(child.uss_bytes for child in before)
    resident = sum(child.rss_bytes for child in after) - sum(child.rss_bytes for child in before)
    return None if own <= 0 else min(1.0, max(0.0, 1 - resident / own))
