"""Containers of many plain values or users' objects, such as a log's lines, with an estimate of what they take."""

from __future__ import annotations

import functools
import itertools
import sys
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

from kerasmemwatch.attribution.variables.live_objects import hashable
from kerasmemwatch.leaks.evidence.heap import Heap
from kerasmemwatch.leaks.evidence.piles import kind_of
from kerasmemwatch.leaks.evidence.reads import attributes_of, is_full
from kerasmemwatch.leaks.evidence.roots import module_of_dict
from kerasmemwatch.units import KIB

__all__ = ["estimated_bytes", "plain_containers"]

_FEWEST, _SAMPLE, _PARTS, _LEVELS = 1000, 50, 20, 2
# Fewer count if their newest are as large as this: a log of long texts.
_FEW, _LARGE_BYTES, _NEWEST = 8, 4 * KIB, 3
_PLAIN = (int, float, complex, str, bytes, bytearray, dict, list, tuple, set, frozenset)


def plain_containers(heap: Heap) -> Iterator[tuple[Any, int, str]]:
    """Containers of at least 1,000 such values, or of eight large ones.

    Yields:
        The container, what it takes by estimate, and the commonest class in it.
    """
    for each in heap.of([list, dict, set, deque]):
        is_long = len(each) >= _FEWEST or (len(each) >= _FEW and all(map(_is_large, _sample(each, _NEWEST))))
        if is_long and module_of_dict(each) is None and not is_full(each):
            sample = hashable(_sample(each))
            kinds = Counter(map(type, sample))
            if sample and all(kind in _PLAIN or kind_of(kind) == "object" for kind in kinds):
                yield each, estimated_bytes(each), kinds.most_common(1)[0][0].__name__


def estimated_bytes(container: Any) -> int:
    """Bytes of a container and of what it holds, from some of its values."""
    sample = _sample(container)
    mean = sum(map(_size, sample)) / max(1, len(sample))
    return sys.getsizeof(container) + int(mean * len(container))


def _is_large(value: Any) -> bool:
    return type(value) in (str, bytes, bytearray) and len(value) >= _LARGE_BYTES


def _sample(container: Any, most: int = _SAMPLE) -> list[Any]:
    """The newest values if they have an order: what is oldest may be of the set-up."""
    values = container.values() if isinstance(container, dict) else container
    newest = values if isinstance(container, (set, frozenset)) else reversed(values)
    try:
        return list(itertools.islice(newest, most))
    except RuntimeError:  # another thread changed it meanwhile
        return []


def _size(value: Any, levels: int = _LEVELS) -> int:
    """Bytes of a value and its parts, and of theirs; a dict's keys are mostly shared."""
    if type(value) not in _PLAIN:
        base: Any = next(kind for kind in type(value).__mro__ if kind.__module__ == "builtins")
        return int(base.__sizeof__(value)) + _size(attributes_of(value) or {}, levels)
    parts = value.values() if type(value) is dict else value if type(value) in (list, tuple, set, frozenset) else ()
    size = functools.partial(_size, levels=levels - 1) if levels else sys.getsizeof
    few = [size(part) for part in list(parts)[:_PARTS] if type(part) in _PLAIN]
    return sys.getsizeof(value) + (sum(few) * len(parts) // len(few) if few else 0)
