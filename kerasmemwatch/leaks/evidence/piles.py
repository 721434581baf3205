"""How many objects there are of each class, those classes of which they pile up, and single ones that grow."""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kerasmemwatch.attribution.live.growing_values import can_grow, growing_values
from kerasmemwatch.attribution.variables.live_objects import all_but_tuples
from kerasmemwatch.compat.tensorflow import OWNED_ITERATOR, TAPE_RECORDS
from kerasmemwatch.leaks.evidence.chains import Chain, find_chain
from kerasmemwatch.leaks.evidence.collector import Moment
from kerasmemwatch.leaks.evidence.graph_sizes import GraphSizes, graph_kinds, graph_sizes
from kerasmemwatch.leaks.evidence.heap import Heap
from kerasmemwatch.leaks.evidence.places import Place
from kerasmemwatch.leaks.evidence.reads import file_of, size_of
from kerasmemwatch.leaks.evidence.references import Holders
from kerasmemwatch.leaks.evidence.roots import Root, is_user_file

__all__ = ["Count", "Pile", "alike", "class_name", "count_classes", "find_piles", "kind_of"]

_FEWEST, _LEAST_SHARE, _MAX_PILES = 8, 0.2, 2
# Their order is that in which they are followed to a name: the ones that hold most come first.
_KINDS = ("tape", "optimizer", "iterator", "variable", "object")


@dataclass(frozen=True)
class Pile:
    """Live objects of one class.

    Attributes:
        kind: ``"growing variable"``, ``"growing table"``, ``"open tape"``, ``"tape"``, ``"optimizer"``, ``"iterator"``,
            ``"variable"``, or ``"object"``, which is of a class of the user's.
        class_name: The class.
        module: Its module.
        count: How many live.
        more: How many more than at the look before; ``None`` if there was none.
        chain: What holds one of the older ones.
        place: The line that keeps them, if found.
        num_bytes: Of a single object that grows, what its value holds; ``None`` of others.
        like: What its value is like, in words.
    """

    kind: str
    class_name: str
    module: str
    count: int
    more: int | None = None
    chain: Chain | None = None
    place: Place | None = None
    num_bytes: int | None = None
    like: str = ""


@dataclass(frozen=True)
class Count:
    """What was counted before a look.

    Attributes:
        cpu_s: CPU time that it took: a third of a look's.
        classes: Number of live objects of each class; ``None`` if that can't be told.
        graphs: The sizes of live graphs; ``None`` if that can't be told.
    """

    cpu_s: float
    classes: Mapping[str, int] | None = None
    graphs: GraphSizes | None = None


def count_classes(step: int, moment: Moment | None = None) -> Count:
    """Count live objects.

    Args:
        step: The newest row's ``step``.
        moment: Count those that were there at this moment; there is no number if that can't be told any more.
    """
    begun = time.thread_time()
    objects = None if moment is None else moment.older()
    is_told = moment is None or objects is not None
    if objects is None:
        objects = all_but_tuples()  # how long that takes is asked for in any case
    try:
        kinds = list(map(type, objects))
        counts = Counter(kinds)
        graphs = None
        if moment is None:  # what a graph has got since then is not told
            wanted = frozenset(graph_kinds(counts))
            graphs = graph_sizes(itertools.compress(objects, map(wanted.__contains__, kinds)), step)
    finally:
        objects.clear()  # it may be in itself
    found = {class_name(kind): count for kind, count in counts.items()}
    return Count(time.thread_time() - begun, found if is_told else None, graphs)


def find_piles(
    heap: Heap,
    before: Mapping[str, int] | None,
    units: int,
    roots: Mapping[int, Root],
    registries: Mapping[int, str],
) -> tuple[Pile, ...]:
    """Find classes of which there is about one object more in each unit, and follow one object to a name.

    Args:
        before: Number of objects by class at the look before; ``None`` if there was none.
        units: Steps or calls since then, or over which memory has grown.
    """
    found: list[tuple[int, Pile, type]] = []
    for kind, count in heap.counts.items():
        name = kind_of(kind)
        if not name or count < _FEWEST:
            continue
        more = None if before is None else count - before.get(class_name(kind), 0)
        if more is None and name != "tape":
            continue  # others may have been there all the time
        if (count if more is None else more) >= max(_FEWEST // 2, _LEAST_SHARE * units):
            found.append((_KINDS.index(name), Pile(name, kind.__qualname__, kind.__module__, count, more), kind))
    piles = [_open_tape(heap, roots, registries), _growing(heap, roots, registries)]
    for _, pile, kind in sorted(found, key=lambda each: (each[0], -each[1].count))[:_MAX_PILES]:
        objects = heap.of([kind])
        chain = find_chain(heap, objects[len(objects) // 4], roots, registries)
        objects.clear()
        piles.append(Pile(pile.kind, pile.class_name, pile.module, pile.count, pile.more, chain))
    return tuple(pile for pile in piles if pile is not None)


def alike(held: Holders) -> Iterator[list[Any]]:
    """Tensors or arrays of one shape, if there are some, that no one container holds, but perhaps a linked list."""
    groups: defaultdict[tuple[Any, ...], dict[int, Any]] = defaultdict(dict)
    many = [size_of(holder) is not None and len(items) >= _FEWEST for holder, items in held.values()]
    together = {id(item) for (_, items), is_many in zip(held.values(), many, strict=True) if is_many for item in items}
    for _, items in held.values():
        for item in items:
            if id(item) not in together:
                is_array = type(item.shape) is tuple
                like = (item.dtype, item.shape) if is_array else (item.dtype.name, str(item.shape))
                groups[(type(item), *like)][id(item)] = item
    yield from (list(group.values()) for group in groups.values() if len(group) >= _FEWEST)


def _open_tape(heap: Heap, roots: Mapping[int, Root], registries: Mapping[int, str]) -> Pile | None:
    """A tape that records though no step is under way: it keeps what all steps compute."""
    tapes = heap.of(kind for kind in heap.counts if kind_of(kind) == "tape")
    recording = [tape for tape in tapes if TAPE_RECORDS.of(tape)]
    chain = find_chain(heap, recording[0], roots, registries) if recording else None
    count, kind = len(recording), type(recording[0]) if recording else object
    tapes.clear()
    recording.clear()
    return Pile("open tape", kind.__qualname__, kind.__module__, count, None, chain) if chain is not None else None


def _growing(heap: Heap, roots: Mapping[int, Root], registries: Mapping[int, str]) -> Pile | None:
    """The largest variable whose shape may change, or lookup table that can be added to."""
    objects = heap.of(filter(can_grow, heap.counts))
    largest = max(growing_values(objects), key=lambda each: each.num_bytes, default=None) if objects else None
    objects.clear()
    if largest is None:
        return None
    kind = type(largest.owner)
    chain = find_chain(heap, largest.owner, roots, registries)
    return Pile(largest.kind, kind.__qualname__, kind.__module__, 1, None, chain, None, largest.num_bytes, largest.like)


def class_name(kind: type) -> str:
    """A class's full name."""
    return f"{kind.__module__}.{kind.__qualname__}"


def kind_of(kind: type) -> str:
    """What objects of a class are, as ``Pile.kind`` has it; ``""`` of those that nobody counts."""
    bases = kind.__mro__
    tensorflow, keras = sys.modules.get("tensorflow"), sys.modules.get("keras")
    if getattr(tensorflow, "GradientTape", None) in bases:
        return "tape"
    if getattr(getattr(keras, "optimizers", None), "Optimizer", None) in bases:
        return "optimizer"
    if OWNED_ITERATOR.names(kind):
        return "iterator"
    if getattr(keras, "Variable", None) in bases or getattr(tensorflow, "Variable", None) in bases:
        return "variable"
    file = file_of(sys.modules.get(str(kind.__module__)))
    is_plain = getattr(keras, "Model", None) not in bases and getattr(keras, "Layer", None) not in bases
    return "object" if is_plain and is_user_file(file) else ""
