"""Causes of growth in words: place and fix first, then the evidence, then the trace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from kerasmemwatch.leaks.verdicts.words import MAY_BE_GARBAGE
from kerasmemwatch.names import shortened
from kerasmemwatch.records.growth import WAITS, Growth, LeakFinding
from kerasmemwatch.units import a_unit, format_bytes

__all__ = [
    "THEIRS",
    "by_owner",
    "confirmed",
    "leak_lines",
    "leak_title",
    "marked_trace",
    "trace_lines",
    "with_remedy",
    "without_cause",
    "without_guess",
]

_TITLES = {
    "retained_tensors": "Tensors are kept",
    "retained_arrays": "Arrays are kept",
    "models_accumulate": "Models are kept",
    "graphs_pinned": "Graphs of trained models are kept",
    "retracing": "A function is retraced",
    "waits_for_collector": "Memory waits for Python's collector",
    "compiled_programs": "Programs that XLA compiled are kept",
    "malloc_retention": "The C library keeps free memory",
    "fragmentation": "Free memory is fragmented",
    "variables_accumulate": "Variables are kept",
    "iterators_accumulate": "Iterators of datasets are kept",
    "python_objects": "Objects of a class are kept",
    "resource_tables": "Lookup tables are made again and again",
    "kernel_cache": "Kernels of eager operations are kept",
    "tape_cache": "Tapes of tf.py_function are kept",
    "onednn_cache": "oneDNN keeps what it prepared for each shape",
    "graph_growth": "A graph gains operations",
    "worker_processes": "Child processes grow",
    "native": "Memory outside Python grows",
}
_NOT_FOUND = (
    "Cause: unknown. To narrow it down, run parts of a step under kerasmemwatch.testing.assert_no_growth(), which "
    "looks more closely."
)
# The heading of causes that are none of the user's code.
THEIRS = "Kept by TensorFlow or Keras, not by your code"
_MAX_CHARS = 300


def without_cause(growth: Iterable[Growth], leaks: Sequence[LeakFinding]) -> str:
    """What to do where something grows and no cause is known, for whatever reason; else nothing."""
    return "" if leaks or not any(each.is_growing for each in growth) else _NOT_FOUND


def by_owner(leaks: Iterable[LeakFinding]) -> tuple[tuple[LeakFinding, ...], tuple[LeakFinding, ...]]:
    """Causes in the user's code, and those in TensorFlow and Keras."""
    every = tuple(leaks)
    return tuple(each for each in every if each.whose == "yours"), tuple(
        each for each in every if each.whose != "yours"
    )


def leak_title(leak: LeakFinding) -> str:
    """What it is, how much and how sure, on one line."""
    title = f"{_TITLES[leak.cause]} ({leak.cause})" if leak.cause in _TITLES else leak.cause
    own = "" if leak.whose == "yours" else f", {leak.whose} own"
    since = "" if leak.since_step is None else f" since step {leak.since_step:,}"
    rate, unit = (leak.rate, leak.unit) if leak.rate is not None else (leak.bytes_per_step, "step")
    pace = "" if rate is None else f": {format_bytes(rate, signed=True)} {a_unit(unit)}{since}"
    sure = "" if leak.confidence is None else f" ({leak.confidence:.0%} sure)"
    return shortened(f"{title}{own}{pace}{sure}", _MAX_CHARS)


def leak_lines(leak: LeakFinding) -> tuple[str, ...]:
    """Where it is, what to change, and why it is said, one line each."""
    issue = f" Known as {leak.known_issue}." if leak.known_issue else ""
    parts = [("Where", leak.where), ("Fix", leak.fix), ("Evidence", leak.evidence + issue)]
    return tuple(f"{name}: {shortened(words, _MAX_CHARS)}" for name, words in parts if words)


def trace_lines(leak: LeakFinding) -> tuple[str, ...]:
    """From the name where it begins to the object, each line further in; the one reference to change is marked."""
    found = []
    for depth, link in enumerate(leak.trace):
        verdict = "<- CHANGE THIS" if link.verdict == "suspect" else f"[{link.verdict}]"
        reason = f": {link.reason}" if link.reason else ""
        found.append(shortened(f"{'   ' * depth}{'-> ' if depth else ''}{link.words}  {verdict}{reason}", _MAX_CHARS))
    return tuple(found)


def marked_trace(leak: LeakFinding) -> tuple[tuple[str, bool], ...]:
    """The lines of the trace, each with whether it is the reference to change."""
    return tuple((line, link.verdict == "suspect") for line, link in zip(trace_lines(leak), leak.trace, strict=True))


def without_guess(growth: Iterable[Growth], leaks: Iterable[LeakFinding]) -> tuple[Growth, ...]:
    """Verdicts that don't say what may explain a part of the growth, where a cause was found."""
    if not any(each.cause != "waits_for_collector" for each in leaks):
        return tuple(growth)
    return tuple(replace(each, explanation=each.explanation.removesuffix(MAY_BE_GARBAGE)) for each in growth)


def with_remedy(growth: Iterable[Growth], leaks: Iterable[LeakFinding]) -> tuple[Growth, ...]:
    """Verdicts whose memory was found to wait for Python's collector say so, with what helps."""
    waiting = next((leak for leak in leaks if leak.cause == "waits_for_collector"), None)
    if waiting is None:
        return tuple(growth)
    return tuple(
        replace(each, verdict=WAITS, explanation=f"{_said(each)} {waiting.fix}")
        if each.verdict in ("growing", WAITS)
        else each
        for each in growth
    )


def confirmed(growth: Iterable[Growth], leaks: Iterable[LeakFinding]) -> tuple[Growth, ...]:
    """Verdicts that were too short to tell, and are growing because what is kept explains the rise."""
    leaks = tuple(leaks)
    return tuple(_confirmed(each, leaks) for each in growth)


def _confirmed(growth: Growth, leaks: Sequence[LeakFinding]) -> Growth:
    may_grow = growth.verdict == "too short to tell" and growth.since_step is not None
    # What is native has no size of its own: it is the growth itself.
    known = (leak for leak in leaks if leak.cause != "native")
    leak = next((leak for leak in known if leak.explains(growth)), None) if may_grow else None
    if leak is None:
        return growth
    whose = "your code" if leak.whose == "yours" else leak.whose.removesuffix("'s")
    return replace(growth, verdict="growing", explanation=f"Growing: {_rest(growth)}; what {whose} keeps explains it")


def _rest(growth: Growth) -> str:
    rest = growth.explanation.partition(": ")[2]
    for doubt in (", in jumps", ", for too few steps", ", as it may while"):
        rest = rest.partition(doubt)[0]
    return rest.replace(" rises by ", " grows by ", 1)


def _said(growth: Growth) -> str:
    words = growth.explanation.replace("Growing:", "Waits for Python's collector:", 1)
    return words if words.endswith(".") else f"{words}."
