"""``assert_no_growth`` and ``no_growth``: memory that grows fails a test, with what grew."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kerasmemwatch.errors import InvalidArgumentError, InvalidTypeError, MemoryGrowthError
from kerasmemwatch.switches import disabled
from kerasmemwatch.testing.meter import Meter, find_meters
from kerasmemwatch.testing.suspects import Suspect, count_objects, find_suspects, grown
from kerasmemwatch.units import format_bytes, parse_bytes

__all__ = ["assert_no_growth", "no_growth"]

# TensorFlow traces a function at its first calls, and fills its caches.
_WARM_UP_SHARE, _MIN_WARM_UP = 0.1, 3
# A leak grows in both halves; a cache that fills, or an allocator that takes a large block, doesn't.
_MIN_HALF_SHARE = 0.25
# Repeats that are watched object by object after a failure.
_MAX_LOOKED_AT = 20


def assert_no_growth(
    step: Callable[[], object], repeats: int = 100, limit: str | int = "64 KiB", ignore: Sequence[str] = ()
) -> None:
    """Call a function again and again, and fail if memory grows each time.

    It warms up with a tenth of ``repeats``, collects garbage once, and measures two halves of ``repeats`` calls, each
    up to a collection. Growth counts if it is above the limit over all and goes on in the second half: of device bytes
    if every allocator counts exactly (see ``kerasmemwatch doctor``), and of RSS if that rises by 2 MiB in each half.

    Args:
        step: The function; its result is dropped.
        repeats: Number of calls that are measured, at least 2.
        limit: Most growth for each call, in bytes or as ``"64 KiB"``.
        ignore: What may grow: causes or types, as the message of a failure shows them.

    Raises:
        MemoryGrowthError: If memory grows (an ``AssertionError``).
        InvalidTypeError: If an argument has the wrong type (a ``TypeError``).
        InvalidArgumentError: If an argument's value is invalid (a ``ValueError``).

    Example:
        >>> import tensorflow as tf
        >>> kept = []
        >>> assert_no_growth(lambda: tf.ones((64, 1024)))
        >>> assert_no_growth(lambda: kept.append(tf.ones((64, 1024))))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        kerasmemwatch.errors.MemoryGrowthError: Memory grows by 2... KiB a repeat ...
    """
    __tracebackhide__ = True
    if not callable(step):
        raise InvalidTypeError(f"Expected step to be a function without arguments. Received: step={step!r}.")
    most = _checked(repeats, limit, ignore, at_least=2)
    if disabled():
        step()
        return
    for _ in range(max(_MIN_WARM_UP, int(repeats * _WARM_UP_SHARE))):
        step()
    meters = find_meters()
    halves = repeats // 2, repeats - repeats // 2
    readings = [_settled(meters)]
    for half in halves:
        for _ in range(half):
            step()
        readings.append(_settled(meters))
    for meter, (first, middle, last) in zip(meters, zip(*readings, strict=True), strict=True):
        rate = (last - first) / repeats
        rises = zip((middle - first, last - middle), halves, strict=True)
        if rate > most and all(rise > max(meter.least, half * most * _MIN_HALF_SHARE) for rise, half in rises):
            suspects = find_suspects(step, min(repeats, _MAX_LOOKED_AT), rate, meter.series)
            _fail(rate, repeats, most, meter, suspects, ignore)
            return


@contextmanager
def no_growth(repeats: int = 1, limit: str | int = "64 KiB", ignore: Sequence[str] = ()) -> Iterator[None]:
    """Fail if memory is higher after the block than before it.

    Run the code once before: what TensorFlow traces and caches at first counts as growth, too. Garbage is collected
    before and after the block.

    Args:
        repeats: How often the block repeats its step; the limit is for each repeat.
        limit: Most growth for each repeat, in bytes or as ``"64 KiB"``.
        ignore: What may grow, as the message of a failure shows it.

    Raises:
        MemoryGrowthError: If memory grows (an ``AssertionError``).

    Example:
        >>> import tensorflow as tf
        >>> with no_growth(repeats=10):
        ...     for _ in range(10):
        ...         total = tf.reduce_sum(tf.ones((64, 1024)))
    """
    __tracebackhide__ = True
    most = _checked(repeats, limit, ignore, at_least=1)
    if disabled():
        yield
        return
    meters = find_meters()
    objects = count_objects()
    readings = _settled(meters)
    yield
    for meter, before, after in zip(meters, readings, _settled(meters), strict=True):
        rate = (after - before) / repeats
        if rate > most and after - before > meter.least:
            _fail(rate, repeats, most, meter, grown(objects, count_objects(), repeats), ignore)
            return


def _checked(repeats: Any, limit: Any, ignore: Any, at_least: int) -> int:
    """Check the arguments, and return the limit in bytes."""
    if isinstance(repeats, bool) or not isinstance(repeats, int):
        raise InvalidTypeError(f"Expected repeats to be a whole number. Received: repeats={repeats!r}.")
    if repeats < at_least:
        raise InvalidArgumentError(f"Expected repeats to be at least {at_least}. Received: repeats={repeats}.")
    if isinstance(ignore, str) or not all(isinstance(each, str) for each in ignore):
        raise InvalidTypeError(f"Expected ignore to be a list of names. Received: ignore={ignore!r}.")
    return parse_bytes(limit, name="limit")


def _settled(meters: Sequence[Meter]) -> list[int]:
    gc.collect()
    return [meter.read() for meter in meters]


def _fail(
    rate: float, repeats: int, limit: int, meter: Meter, suspects: Sequence[Suspect], ignore: Sequence[str]
) -> None:
    """Raise, unless all that grew is to be ignored."""
    __tracebackhide__ = True
    left = [suspect for suspect in suspects if suspect.name not in ignore]
    if suspects and not left:
        return
    if not suspects and "native" in ignore:
        return
    lines = [
        f"Memory grows by {format_bytes(rate)} a repeat ({meter.words}), above the limit of {format_bytes(limit)}: "
        f"{format_bytes(rate * repeats, signed=True)} in {repeats:,} repeats.",
        *(f"  {line}" for suspect in left for line in suspect.lines),
    ]
    if not left:
        lines.append("  No Python object explains it: the memory is held outside Python.")
    names = [suspect.name for suspect in left] or ["native"]
    lines.append(f"To accept it: ignore={[*ignore, *names]!r}")
    raise MemoryGrowthError("\n".join(lines))
