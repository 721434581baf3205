"""Memory outside Python: compiled programs, and what the C library, TensorFlow or native code keeps."""

from __future__ import annotations

from collections.abc import Iterator

from kerasmemwatch.leaks.causes.case import Case, at
from kerasmemwatch.leaks.causes.trace import OUTSIDE
from kerasmemwatch.records.growth import LeakFinding, TraceLink
from kerasmemwatch.units import MIB, format_bytes

__all__ = ["compiled_programs", "filling_cache", "malloc_retention", "native"]

_LEAST_SHARE, _FEWEST_FITS = 0.4, 3
# What XLA's programs of one small model take on a CPU is 9 MiB: a rise of so much for each may be theirs.
_FEWEST_PROGRAMS, _PROGRAM_BYTES = 5, (2 * MIB, 40 * MIB)


def compiled_programs(case: Case) -> Iterator[LeakFinding]:
    """A finding if models that XLA compiles are made again and again."""
    look, rises = case.look, case.rises
    if not case.is_host or look is None or not look.is_compiled or not rises.models >= _FEWEST_FITS:
        return
    least, most = _PROGRAM_BYTES
    is_likely = rises.models >= _FEWEST_PROGRAMS and least <= case.grown_bytes / rises.models <= most
    if not (case.is_told or is_likely):
        return
    yield case.finding(
        "compiled_programs",
        f"{rises.models:,.0f} models were compiled by XLA, and TensorFlow keeps each program.",
        "Train one model and give it new weights, model.set_weights(weights); or compile with jit_compile=False.",
        0.75,
        known_issue="tensorflow #64170",
        whose="TensorFlow's",
        unit="model",
        rate=case.grown_bytes / rises.models,
    )


def malloc_retention(case: Case) -> Iterator[LeakFinding]:
    """A finding if the C library kept what was free, at the end of its heap or between blocks in use."""
    found = case.collected
    kept = None if found is None else found.malloc_bytes
    grown = case.grown_bytes if case.grown_then is None else case.grown_then
    if found is None or not case.is_host or kept is None or kept < _LEAST_SHARE * grown:
        return
    evidence = f"{format_bytes(kept)} of RSS were free: the C library gave them back when asked (malloc_trim)."
    if found.top_bytes is not None and found.top_bytes < kept / 2:
        yield case.finding(
            "fragmentation",
            f"{evidence} Only {format_bytes(found.top_bytes)} were at the end of its heap, from where it gives memory "
            "back by itself: the rest lay between blocks in use, or in the heaps of other threads.",
            "Preload jemalloc or tcmalloc (LD_PRELOAD), or set MALLOC_ARENA_MAX=2 before Python starts; or call "
            f"ctypes.CDLL(None).malloc_trim(0) {case.regularly}.",
            0.8,
            known_issue="tensorflow #44176",
        )
        return
    yield case.finding(
        "malloc_retention",
        evidence,
        "Set MALLOC_TRIM_THRESHOLD_=0 or MALLOC_ARENA_MAX=2 before Python starts, or preload jemalloc.",
        0.8,
        known_issue="tensorflow #44176",
    )


def filling_cache(case: Case) -> Iterator[LeakFinding]:
    """A finding if datasets' caches hold as much as memory grew by, and one is never full or gained that much."""
    look, grown = case.look, case.grown_bytes
    if look is None or look.cached_bytes is None or " GPU:" in case.main.series or not grown > 0:
        return
    then, steps, per_step = case.looks[0].cached_bytes, look.step - case.looks[0].step, case.main.bytes_per_step or 0.0
    has_gained = then is not None and steps > 0 and look.cached_bytes - then >= _LEAST_SHARE * per_step * steps
    if look.cached_bytes < _LEAST_SHARE * grown or not (look.cache_place or has_gained):
        return
    yield case.finding(
        "native",
        f"Iterators hold {format_bytes(look.cached_bytes)} in the in-memory caches of their datasets.",
        "Call cache() before repeat(): after it, each element of each pass is new to the cache. Or leave cache() out.",
        0.8 if look.cache_place else 0.6,
        where=at(look.cache_place),
        trace=(TraceLink("cache() of a dataset", "suspect", "TensorFlow keeps all elements that passed"),),
    )


def native(case: Case) -> Iterator[LeakFinding]:
    """A finding that says what was looked for, if there is no other.

    Of what is left, TensorFlow's cache of eager kernels is the commonest. Clearing it would tell, but that restarts
    some random sequences, so it is left to the user.
    """
    if case.look is None or not case.is_host:
        return
    out = [
        "no container of tensors or arrays, no class of objects, no model and no graph explains it",
        *([] if case.collected is None else ["a full collection gave little back"]),
    ]
    yield case.finding(
        "native",
        f"Memory outside Python grows, as far as was seen: {'; '.join(out)}.",
        "See whether kerasmemwatch.release() gives it back: then it is TensorFlow's cache of eager kernels, which has "
        "one for each new name of a variable, each save, and each random operation under a global seed. If not, remove "
        "the native libraries that a step calls, one by one, until the growth stops.",
        0.4,
        trace=(OUTSIDE,),
    )
