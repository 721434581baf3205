"""A look at all live objects as values: who holds how many tensors and arrays, and which models and functions live."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import FrameType
from typing import Any

from kerasmemwatch.attribution.live.dataset_caches import cached_bytes
from kerasmemwatch.attribution.live.live_buffers import tensor_bytes
from kerasmemwatch.compat.tensorflow import (
    EAGER_TENSOR,
    FUNC_GRAPH,
    KEPT_FUNCTIONS,
    OWNED_ITERATOR,
    TF_FUNCTION,
)
from kerasmemwatch.leaks.evidence.chains import Chain, find_chain, place_of
from kerasmemwatch.leaks.evidence.containers import Contents, containers
from kerasmemwatch.leaks.evidence.functions import TracedFunction, traced_functions
from kerasmemwatch.leaks.evidence.graph_sizes import (
    GraphSizes,
    GrownGraph,
    graph_kinds,
    graph_sizes,
    grown_graph,
    line_of,
)
from kerasmemwatch.leaks.evidence.heap import SEARCHES_S, Heap
from kerasmemwatch.leaks.evidence.models import FEW_MODELS, Models, find_models, followed
from kerasmemwatch.leaks.evidence.piles import Pile, class_name, find_piles
from kerasmemwatch.leaks.evidence.places import Place, chained_lines
from kerasmemwatch.leaks.evidence.reads import file_of
from kerasmemwatch.leaks.evidence.roots import is_user_file, registries, untracked_locals, user_roots

__all__ = ["Contents", "Look", "Models", "take_look"]

_MAX_SUSPECTS, _MAX_GRAPHS, _MAX_ITERATORS = 3, 6, 8


@dataclass(frozen=True)
class Look:
    """What lived at one moment.

    Attributes:
        step: The newest row's ``step``.
        cpu_s: CPU time that the look took.
        tensors: Number and bytes of live eager tensors that are no variables.
        containers: Containers of tensors or arrays, by id, largest first.
        models: The live models.
        graphs: Number of live graphs.
        graph_place: The user's line that made most of the newest graphs.
        functions: The live ``tf.function``s that were traced.
        piles: Classes of which objects pile up.
        classes: Number of live objects of each class, by its full name.
        call: Line of the user's that is running: the call of ``fit``.
        is_compiled: Whether XLA compiles the model at work.
        graph_sizes: Number of operations of each live graph; ``None`` if no graph was looked at.
        grown_graph: The graph that gained most operations since the look or count before; ``None`` if none did.
        cached_bytes: Bytes in in-memory caches of datasets that live iterators read; ``None`` if a
            container explains growth, so that they were not asked.
        cache_place: The user's line that calls ``cache()`` after ``repeat()``, if there is one only.
    """

    step: int
    cpu_s: float
    tensors: tuple[int, int] = (0, 0)
    containers: Mapping[int, Contents] = ()  # type: ignore[assignment]
    models: Models = field(default_factory=lambda: Models(0, 0))
    graphs: int = 0
    graph_place: Place | None = None
    functions: tuple[TracedFunction, ...] = ()
    piles: tuple[Pile, ...] = ()
    classes: Mapping[str, int] = ()  # type: ignore[assignment]
    call: Place | None = None
    is_compiled: bool = False
    graph_sizes: GraphSizes | None = None
    grown_graph: GrownGraph | None = None
    cached_bytes: int | None = None
    cache_place: Place | None = None


Suspects = Callable[[Mapping[int, Contents]], Sequence[int]]


def take_look(
    step: int,
    suspects: Suspects,
    frame: FrameType | None,
    current: Any = None,
    *,
    before: Mapping[str, int] | None = None,
    graphs_before: GraphSizes | None = None,
    units: int = 0,
    plain: bool = True,
    searches_s: float = SEARCHES_S,
    most_s: float = math.inf,
) -> Look:
    """Visit all objects.

    Args:
        step: The newest row's ``step``.
        suspects: Picks the containers that may explain the growth; only those are followed to a name.
        frame: Innermost frame of the stack whose functions' variables may hold objects.
        current: The model that is at work; it is expected to live.
        before: Number of objects by class at the look before; ``None`` if there was none.
        graphs_before: The sizes of graphs at the look or count before.
        units: Steps or calls since then, or over which memory has grown.
        plain: Whether containers of plain values, which are on the host, may explain the growth.
        searches_s: CPU time that searches for names may take, as ``Heap`` has it.
        most_s: CPU time after which they end sooner, as ``Heap`` has it.
    """
    import numpy as np

    begun = time.thread_time()
    tensor_class = EAGER_TENSOR.get()
    call = _call_site(frame)
    kinds = {tensor_class, np.ndarray}
    with Heap(kinds, untracked_locals(frame), searches_s=searches_s, most_s=most_s) as heap:
        found, totals, live = containers(
            heap, tensor_class, tensor_bytes, lambda found: bool(suspects(found)), plain=plain
        )
        outer, models = find_models(heap, before)
        graphs = heap.of(graph_kinds(heap.counts))
        roots, kept = user_roots(frame), {**registries(), **_function_lists(graphs)}
        follow = partial(find_chain, heap, roots=roots, registries=kept)
        others = [model for model in outer if model is not current]
        if (models.more or 0) > FEW_MODELS:  # they hold most, so they come first while there is time
            models = followed(models, others, follow)
        for key in list(suspects(found))[:_MAX_SUSPECTS]:
            found[key] = _named(found[key], follow(live[key]))
        models = models if models.chains else followed(models, others, follow)
        others.clear()
        piles = find_piles(heap, before, units, roots, kept)
        piles = tuple(replace(each, place=_pile_place(each.chain)) for each in piles)
        functions = traced_functions(heap.of([TF_FUNCTION.get()]))
        of_functions = [graph for graph in graphs if FUNC_GRAPH.names(type(graph))]
        num_graphs, graph_place = len(of_functions), _graph_place(of_functions[-_MAX_GRAPHS:])
        sizes = graph_sizes(graphs, step)
        grown = None if graphs_before is None else grown_graph(graphs, sizes, graphs_before)
        cached = None if suspects(found) else _cached_bytes(heap)
        classes = {class_name(kind): count for kind, count in heap.counts.items()}
        live.clear()
        outer.clear()
        graphs.clear()
        of_functions.clear()
    is_compiled, cache_place = bool(getattr(current, "jit_compile", False)), _cache_place() if cached else None
    return Look(
        step,
        time.thread_time() - begun,
        totals,
        found,
        models,
        num_graphs,
        graph_place,
        functions,
        piles,
        classes,
        call,
        is_compiled,
        sizes,
        grown,
        cached,
        cache_place,
    )


def _named(contents: Contents, chain: Chain) -> Contents:
    return replace(contents, chain=chain, place=contents.place or place_of(chain))


def _cached_bytes(heap: Heap) -> int:
    iterators = heap.of(kind for kind in heap.counts if OWNED_ITERATOR.names(kind))
    return sum(cached_bytes(each) or 0 for each in iterators[-_MAX_ITERATORS:])


def _cache_place() -> Place | None:
    files = dict.fromkeys(map(file_of, sys.modules.copy().values()))
    lines = [line for file in files if is_user_file(file) for line in chained_lines(file, "cache", after="repeat")]
    return lines[0] if len(lines) == 1 else None


def _call_site(frame: FrameType | None) -> Place | None:
    while frame is not None:
        file, line = frame.f_code.co_filename, frame.f_lineno
        if is_user_file(file):
            return Place.read(file, line)
        frame = frame.f_back
    return None


def _graph_place(graphs: Sequence[Any]) -> Place | None:
    """The innermost line of the user's at which most of some graphs' first operations were made."""
    newest = [operations[-1] for graph in graphs if (operations := graph.get_operations())]
    found = Counter(filter(None, map(line_of, newest)))
    return found.most_common(1)[0][0] if found else None


def _pile_place(chain: Chain | None) -> Place | None:
    """The line that adds to what holds many of a pile, of which the chain leads to one."""
    return None if chain is None else place_of(chain, assigned=False) or place_of(chain)


def _function_lists(graphs: Sequence[Any]) -> dict[int, str]:
    """Ids of the lists in which graphs keep the Python functions that became operations in them."""
    lists = (getattr(graph, KEPT_FUNCTIONS, None) for graph in graphs)
    return {id(each): "TensorFlow's list of Python functions of a graph" for each in lists if each is not None}
