"""What TensorFlow keeps for ever though no Python object holds it: lookup tables, eager kernels, tapes, shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kerasmemwatch.leaks.causes.case import Case, at
from kerasmemwatch.records.growth import LeakFinding, TraceLink
from kerasmemwatch.units import format_bytes

__all__ = ["kernel_cache", "onednn_cache", "resource_tables", "tape_cache"]

_FEWEST = 5
# An empty table, of the host.
_LEAST_TABLE_BYTES = 1024
# Measured in TensorFlow 2.21, by python benchmarks/leaks.py --bare: RSS of a kernel for a new name or seed. What others
# take differs, and RSS rises in jumps, so growth by so many times this is explained by kernels.
KERNEL_BYTES = 35 * 1024
_LEAST_SHARE, _MAX_SHARE = 0.4, 2.5
# Kernels a step that make growth sure which rows alone don't tell.
_LEAST_KERNELS = 0.5
# Calls with new shapes, their share of all, and the most that RSS grows by for one.
_FEWEST_SHAPES, _LEAST_NEW, _MAX_SHAPE_BYTES = 20, 0.4, 1024 * 1024


def resource_tables(case: Case) -> Iterator[LeakFinding]:
    """A finding if lookup tables are made again and again."""
    made = case.made
    each = _bytes_each(case, made.tables)
    if each is None or each < _LEAST_TABLE_BYTES:
        return
    yield case.finding(
        "resource_tables",
        f"{made.tables:,} lookup tables were made in {made.steps:,} steps. TensorFlow keeps each, with its "
        "vocabulary, also when its layer is gone; keras.backend.clear_session() and gc.collect() don't change that.",
        "Make the layer or table once, before the loop, and use it again and again.",
        0.8,
        known_issue="tensorflow #61866",
        **_kept(case, "tables", "TensorFlow's resource manager", f"lookup tables x{made.tables:,}"),
    )


def kernel_cache(case: Case) -> Iterator[LeakFinding]:
    """A finding if eager operations get ever new names or seeds, each of which needs a kernel of its own."""
    made = case.made
    number = made.names + made.seeds
    each = _bytes_each(case, number)
    if each is None or not case.is_host or not _LEAST_SHARE <= KERNEL_BYTES / each <= _MAX_SHARE:
        return
    if not case.is_told and number < _LEAST_KERNELS * made.steps:
        return  # a model that is built has as many once
    is_seeded = made.seeds > made.names
    yield case.finding(
        "kernel_cache",
        f"{_counted(made.names, made.seeds)} in {made.steps:,} steps. TensorFlow keeps a kernel for each, of about "
        f"{format_bytes(KERNEL_BYTES)}: that is {format_bytes(number * KERNEL_BYTES)}.",
        _SEEDED if is_seeded else _NAMED,
        0.8,
        **_kept(case, "seeds" if is_seeded else "names", "TensorFlow's cache of eager kernels", f"kernels x{number:,}"),
    )


_SEEDED = (
    "Draw with keras.random and one keras.random.SeedGenerator, or a tf.random.Generator, or within a tf.function; or "
    "call kerasmemwatch.release() now and then."
)
_NAMED = (
    "Give variables the same names again, make them once, or save and compile less often; or call "
    "kerasmemwatch.release() now and then."
)


def tape_cache(case: Case) -> Iterator[LeakFinding]:
    """A finding if the cache of tapes of ``tf.py_function`` gains some, and they hold most of the growth."""
    made = case.made
    each = _bytes_each(case, made.tapes)
    if each is None or made.tape_bytes is None or made.tape_bytes < _LEAST_SHARE * (each - KERNEL_BYTES * case.is_host):
        return
    yield case.finding(
        "tape_cache",
        f"TensorFlow's cache of tapes of tf.py_function gained {made.tapes:,} in {made.steps:,} steps, each with "
        f"{format_bytes(made.tape_bytes)} of results, besides arguments. A tape is freed only when its gradient is "
        "taken.",
        "Call tf.py_function within a tf.function, or tf.numpy_function instead, which has no gradient.",
        0.85,
        known_issue="tensorflow #35010",
        **_kept(case, "py_functions", "TensorFlow's script_ops.tape_cache", f"tapes x{made.tapes:,}"),
    )


def onednn_cache(case: Case) -> Iterator[LeakFinding]:
    """A finding if most calls of functions have new shapes, oneDNN runs them, and no function is traced for it."""
    made = case.made
    if not case.is_host or not made.has_onednn or made.shapes < _FEWEST_SHAPES or not case.grown_bytes > 0:
        return
    share, each = made.shapes / made.calls, case.grown_bytes / case.rises.steps * made.calls / made.shapes
    is_traced = case.rises.functions >= _FEWEST
    if share < _LEAST_NEW or each > _MAX_SHAPE_BYTES or is_traced:
        return
    yield case.finding(
        "onednn_cache",
        f"{made.shapes:,} of {made.calls:,} calls of traced functions that were looked at had new argument shapes. "
        "On a CPU, oneDNN caches what it prepares for each shape. No graph grows with it.",
        "Pad to a few sizes; or set TF_ENABLE_ONEDNN_OPTS=0 before Python starts, which tells whether it is the cause.",
        0.6,
        known_issue="tensorflow #38742",
        **_kept(case, "shapes", "oneDNN's cache", f"shapes x{made.shapes:,}"),
    )


def _counted(names: int, seeds: int) -> str:
    parts = [
        *([f"{names:,} variables got new names"] if names else []),
        *([f"{seeds:,} eager operations drew a seed under a global one (set_seed)"] if seeds else []),
    ]
    return " and ".join(parts)


def _bytes_each(case: Case, number: int) -> float | None:
    """Bytes that memory grew by for each of so many; ``None`` if there are too few to be the cause."""
    steps = case.rises.steps
    if number < _FEWEST or not case.made.steps or not steps > 0 or not case.grown_bytes > 0:
        return None
    return case.grown_bytes / steps * case.made.steps / number


def _kept(case: Case, kind: str, holder: str, held: str) -> dict[str, Any]:
    """Where what TensorFlow keeps is made, and the trace of it."""
    place = case.made.places.get(kind)
    reason = "the line above makes more and more" if place else "there are more and more of them"
    return {
        "where": at(place),
        "whose": "TensorFlow's",
        "trace": (
            TraceLink(holder, "expected", "it lives as long as the process"),
            TraceLink(held, "suspect", reason),
        ),
    }
