"""A verdict as a sentence for users."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kerasmemwatch.leaks.verdicts.filling import Filling, Shuffle
from kerasmemwatch.records.growth import Growth
from kerasmemwatch.units import a_unit, format_bytes

__all__ = ["MAY_BE_GARBAGE", "Seen", "explained"]

# The end of a verdict where Python's full collection has not run.
MAY_BE_GARBAGE = "; some of it may be garbage that Python has not freed yet: gc.collect() would tell"


@dataclass(frozen=True)
class Seen:
    """What a verdict rests on beside its rate.

    Attributes:
        is_in_first_epoch: Whether no second epoch has begun.
        stage: The rows' stage.
        total: By how many bytes the floor moved; ``None`` if there are too few rows.
        per_step: The same per training step.
        may_grow_by: The fastest growth a training step that is not ruled out; ``None`` if it is too slow to count.
        counted: What was looked at: ``"steps"``, the ends of ``"epochs"``, or ``"readings"`` that are further apart.
        jump_step: Step at which the floor rose once; ``None`` if it didn't, or more than once.
        num_since: Rows since then.
        filling_bytes: What the dataset's caches hold once they are full; ``None`` if unknown.
        filling: What is known to fill and explains the rise.
        held_bytes: What that holds now.
        shuffle: The shuffle buffer that may explain the rise.
        newest_bytes: The newest value.
        is_late: Whether most of the rise came in the last quarter.
        is_in_jumps: Whether it rises as clean runs do for a while, in jumps or over few epochs.
        is_new: Whether it rises evenly, but did not yet do so a few rows before.
        is_garbage: Whether collections have shown that it is garbage.
        num_collections: How often Python's full collection has run meanwhile; ``None`` if unknown.
    """

    is_in_first_epoch: bool = False
    stage: str = "train"
    total: float | None = None
    per_step: float = 0.0
    may_grow_by: float | None = None
    counted: str = "steps"
    jump_step: int | None = None
    num_since: int = 0
    filling_bytes: int | None = None
    filling: Filling | None = None
    held_bytes: float = 0.0
    shuffle: Shuffle | None = None
    newest_bytes: float | None = None
    is_late: bool = False
    is_in_jumps: bool = False
    is_new: bool = False
    is_garbage: bool = False
    num_collections: int | None = None


_FIRST_PASS = {
    "train": " of the first epoch, in which caches and shuffle buffers fill; a second epoch tells",
    "test": " of the first evaluate, in which caches fill; a second one tells",
    "predict": " of one predict, which keeps its results until it ends",
}


def explained(growth: Growth, seen: Seen) -> Growth:
    """The same verdict with its sentence."""
    return replace(growth, explanation=f"{growth.verdict.capitalize()}: {_sentence(growth, seen)}")


def _sentence(growth: Growth, seen: Seen) -> str:
    over = f"over {growth.num_samples:,} {seen.counted}"
    if growth.verdict == "too short to tell":
        return _too_short(growth, seen, over)
    if seen.filling is not None:
        rose, held = f"{growth.label} rose by {format_bytes(seen.total)} {over}", format_bytes(seen.held_bytes)
        if seen.filling.are_results:
            return f"{rose}, as this predict keeps its results until it ends: {held} so far"
        if growth.verdict == "settling":
            return f"{rose}, as the dataset's cache filled: it holds {held}"
        full = seen.filling.full_bytes
        return f"{rose}, as the dataset's cache fills: it holds {held} " + (
            "so far" if full is None else f"of {format_bytes(full)}"
        )
    if growth.verdict == "filling":
        size = "" if seen.filling_bytes is None else f" of {format_bytes(seen.filling_bytes)}"
        rose = f"{growth.label} rose by {format_bytes(seen.total)} {over} of the first epoch"
        return f"{rose}, in which the dataset's cache{size} fills; a second epoch tells whether that is all"
    if growth.verdict == "settling":
        last = f"{seen.num_since:,}" if seen.num_since else "quarter"
        return f"{growth.label} rose by {format_bytes(seen.total)} {over}, but hardly in the last {last} of them"
    if growth.verdict == "steady" and seen.jump_step is not None:
        rose = f"it rose once, by {format_bytes(seen.total)} at step {seen.jump_step:,}"
        return f"{growth.label} doesn't grow ({rose}, and not in the {seen.num_since:,} steps since)"
    if growth.verdict == "steady":
        return f"{growth.label} doesn't grow (its floor {_moved(seen)} {over})"
    pace = _pace(growth, over)
    if growth.verdict == "waits for the collector":
        what = f"{growth.label} rises {pace}"
        if seen.is_garbage:
            return f"{what}, until Python frees its garbage; gc.collect() frees it sooner"
        freed = "frees only seldom" if seen.num_collections else "has not freed yet"
        return f"{what}; it may be garbage that Python {freed}: gc.collect() would tell"
    sentence = f"{growth.label} grows {pace}{_limit(growth, seen)}"
    if seen.num_collections == 0:
        sentence += MAY_BE_GARBAGE
    return sentence


def _pace(growth: Growth, over: str) -> str:
    assert growth.rate is not None and growth.interval is not None
    low, high = (format_bytes(end) for end in growth.interval)
    since = "" if growth.since_step is None else f" since step {growth.since_step:,}"
    return f"by {format_bytes(growth.rate)} {a_unit(growth.unit)}{since} (95 % interval {low} to {high}, {over})"


def _too_short(growth: Growth, seen: Seen, over: str) -> str:
    if seen.shuffle is not None:
        size = format_bytes(seen.shuffle.num_bytes)
        rises = f"{growth.label} rises {_pace(growth, over)}"
        return f"{rises}, as it may while elements replace each other in the dataset's shuffle buffer of {size}"
    if seen.is_new:
        return f"{growth.label} rises {_pace(growth, over)}, for too few steps to tell it from batches that wait"
    if seen.is_in_jumps:
        return f"{growth.label} rises {_pace(growth, over)}, in jumps that training without a leak may have, too"
    if seen.may_grow_by is not None:
        fastest = format_bytes(seen.may_grow_by)
        return f"{growth.label} varies too much to tell: it may grow by up to {fastest} a step, or not at all ({over})"
    if seen.total is not None:
        rose = f"{growth.label} rose by {format_bytes(seen.total)}"
        if seen.jump_step is not None:
            since = f"{seen.num_since:,} steps since then are too few to tell whether that is all"
            return f"{rose} at step {seen.jump_step:,}; {since}"
        if seen.is_in_first_epoch:
            return f"{rose} {over}{_FIRST_PASS[seen.stage]}"
        return f"{rose} {over}, {'most of it near the end' if seen.is_late else 'not steadily enough to tell'}"
    if seen.is_in_first_epoch and seen.stage == "train":
        return f"growth of {growth.label} shows only from the second epoch on"
    return f"{growth.label} has only {growth.num_samples:,} {seen.counted} after the warm-up"


def _moved(seen: Seen) -> str:
    """The next power of two above what the floor moved by a step, or that it fell."""
    bound = 64.0
    while bound <= abs(seen.per_step):
        bound *= 2
    if seen.per_step <= -512:
        return f"fell by {format_bytes(-(seen.total or 0.0))}"
    return f"moved by less than {format_bytes(bound)} a step"


def _limit(growth: Growth, seen: Seen) -> str:
    if growth.limit is None:  # on a CPU the host's bounds it, and the verdict on host RSS tells when that is met
        return ""
    if seen.newest_bytes is not None and seen.newest_bytes >= growth.limit:
        return f"; it is at its limit of {format_bytes(growth.limit)}"
    if growth.met_at is None:
        return ""
    return f"; at this pace it meets its limit of {format_bytes(growth.limit)} at step {growth.met_at:,}"
