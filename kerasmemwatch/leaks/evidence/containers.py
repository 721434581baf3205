"""Containers of many tensors or arrays: lists, dicts and others, also of small things that hold one or a few."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import BuiltinFunctionType, CellType, FunctionType, ModuleType
from typing import Any
from zlib import crc32

from kerasmemwatch.compat.converted_code import origin_of
from kerasmemwatch.leaks.evidence.chains import Chain
from kerasmemwatch.leaks.evidence.heap import Heap
from kerasmemwatch.leaks.evidence.piles import alike
from kerasmemwatch.leaks.evidence.places import Place, adding_line
from kerasmemwatch.leaks.evidence.plain import plain_containers
from kerasmemwatch.leaks.evidence.reads import is_a, is_full, most_of, size_of, variable_of
from kerasmemwatch.leaks.evidence.references import Holders
from kerasmemwatch.leaks.evidence.roots import is_user_file, module_of_dict
from kerasmemwatch.units import KIB

__all__ = ["Contents", "containers"]

_FEWEST, _LEAST_BYTES, _MAX_LEVELS, _LEAST_SINGLE_BYTES = 8, 16 * KIB, 5, 256 * KIB
# Of things that hold some each, such as the weights of a model.
_FEWEST_THINGS = 5
# What holds them otherwise: a module's globals, a class's attributes, a function's defaults.
_NO_PARTS = (type, FunctionType, ModuleType, BuiltinFunctionType)


@dataclass(frozen=True)
class Contents:
    """What one container holds of tensors or arrays.

    Attributes:
        kind: ``"tensor"`` or ``"array"``: which of them takes more bytes; ``"object"`` if it holds plain values or
            users' objects, the bytes of which are an estimate.
        count: How many things it holds that are, or hold, such.
        num_bytes: Bytes of all of them.
        container: Class of the container; ``""`` if they are of one shape and no one container is known to hold them.
        like: Those that take most bytes: ``"float32[32, 10]"``.
        within: Class of the things that hold them, if the container does not hold them itself.
        scalars: Whether nearly all have one element.
        view_bytes: Bytes that its arrays keep beyond their own, because each is a part of a larger one.
        chain: The way to the container, where it was asked for.
        place: The line that adds to it, if found.
        length: First dimension of a single tensor or array that a name holds, which is ``container`` then; else
            ``None``.
        closes_over: The variable of which each of so many functions, that are made alike, holds one; ``container`` is
            their name then.
        most: How many things it may hold, as a deque with ``maxlen``; ``None`` if there is no limit.
    """

    kind: str
    count: int
    num_bytes: int
    container: str
    like: str
    within: str = ""
    scalars: bool = False
    view_bytes: int = 0
    chain: Chain | None = None
    place: Place | None = None
    length: int | None = None
    closes_over: str = ""
    most: int | None = None

    @property
    def is_by_size(self) -> bool:
        """Whether no more than its size tells that it may explain growth: it is not looked for in each look."""
        return self.kind == "object" or self.length is not None or not self.container


def containers(
    heap: Heap,
    tensor_class: type,
    tensor_bytes: Callable[[Any], int],
    are_enough: Callable[[dict[int, Contents]], bool],
    *,
    plain: bool = True,
) -> tuple[dict[int, Contents], tuple[int, int], dict[int, Any]]:
    """Find containers of at least eight tensors or arrays, or of five things that hold some.

    Args:
        are_enough: Whether containers that hold them directly explain what is to be explained; if not, those of things
            that hold them are looked for, too, then large ones that are alone, and containers of plain values.
        plain: Whether the last are.

    Returns:
        Contents by the container's id, largest first; number and bytes of live tensors; the containers themselves.
    """
    tensors = {id(item): item for _, held in heap.held.values() for item in held if type(item) is tensor_class}
    sizes = {key: tensor_bytes(item) for key, item in tensors.items()}
    direct: dict[int, tuple[Any, list[Any], str]] = {}
    small: list[tuple[Any, list[Any]]] = []
    for key, (holder, held) in heap.held.items():
        if _is_container(holder) and len(held) >= _FEWEST:
            if module_of_dict(holder) is None:
                direct[key] = holder, held, ""
        elif not is_a(holder, _NO_PARTS):
            small.append((holder, held))

    def size_of(item: Any) -> int:
        return sizes.get(id(item)) or (int(item.nbytes) if type(item) is not tensor_class else 0)

    found: dict[int, Contents] = {}
    live: dict[int, Any] = {}

    def add(groups: dict[int, tuple[Any, list[Any], str]]) -> None:
        for key, (holder, items, within) in groups.items():
            contents = _contents(holder, items, within, tensor_class, sizes, tensor_bytes)
            if contents.num_bytes:
                found[key], live[key] = contents, holder

    add(direct)
    if not are_enough(found):
        closures = _functions_over(heap, small)
        add(_around(heap, [*small, *closures], size_of))
        if not are_enough(found):
            for functions, items in _by_code(closures):
                contents = _contents(functions, items, "", tensor_class, sizes, tensor_bytes)
                key = id(functions[-1].__code__)
                live[key] = items[-1]
                found[key] = _of_functions(contents, functions[-1], items[-1])
    if not are_enough(found):
        for key, item in _singles(heap, size_of).items():
            if key not in found:
                contents = _contents(item, [item], "", tensor_class, sizes, tensor_bytes)
                found[key], live[key] = replace(contents, count=1, length=_length(item)), item
    if plain and not are_enough(found):
        for holder, size, like in plain_containers(heap):
            if id(holder) not in found:
                name, most = type(holder).__name__, most_of(holder)
                found[id(holder)] = Contents("object", len(holder), size, name, like, most=most)
                live[id(holder)] = holder
    if not are_enough(found):
        for items in alike(heap.held):
            contents = _contents(items, items, "", tensor_class, sizes, tensor_bytes)
            key = -crc32(f"{contents.kind} {contents.like}".encode()) - 1  # no id, and the same in each look
            if contents.num_bytes:
                found[key], live[key] = replace(contents, container=""), items[len(items) // 2]
    ranked = dict(sorted(found.items(), key=lambda item: -item[1].num_bytes))
    return ranked, (len(tensors), sum(sizes.values())), live


def _of_functions(contents: Contents, newest: FunctionType, item: Any) -> Contents:
    """What functions made of one code hold, of which the newest holds an item."""
    name = variable_of(newest, item)
    return replace(contents, container=newest.__name__, closes_over=name, place=_line_of_variable(newest, name))


def _functions_over(heap: Heap, holders: Sequence[tuple[Any, list[Any]]]) -> list[tuple[Any, list[Any]]]:
    """Functions that close over what their variables hold.

    Args:
        holders: What holds items, variables of functions among others, and which.
    """
    cells = {id(holder): held for holder, held in holders if type(holder) is CellType}
    if len(cells) < _FEWEST:
        return []
    found: list[tuple[Any, list[Any]]] = []
    for each in heap.of([FunctionType]):
        items = [item for cell in each.__closure__ or () for item in cells.get(id(cell), ())]
        if items:
            found.append((each, items))
    return found


def _by_code(functions: Sequence[tuple[Any, list[Any]]]) -> Iterator[tuple[list[FunctionType], list[Any]]]:
    """Functions of the user's that were made of one code, and what all of them close over."""
    groups: defaultdict[int, list[tuple[Any, list[Any]]]] = defaultdict(list)
    for function, items in functions:
        if is_user_file(function.__code__.co_filename):
            groups[id(function.__code__)].append((function, items))
    for group in groups.values():
        if len(group) >= _FEWEST:
            yield [function for function, _ in group], [item for _, items in group for item in items]


def _line_of_variable(function: FunctionType, name: str) -> Place:
    """The line that assigns a variable which a function closes over, or else the function's first."""
    file, line = origin_of(function.__code__.co_filename, function.__code__.co_firstlineno)
    return adding_line(file, name, line) or Place.read(file, line)


def _singles(heap: Heap, size_of: Callable[[Any], int]) -> dict[int, Any]:
    """The largest tensor or array of each holder, by the holder's id: one may be made anew, and larger each time."""
    found = {}
    for key, (holder, held) in heap.held.items():
        item = max(held, key=size_of)
        if size_of(item) >= _LEAST_SINGLE_BYTES and _length(item) and not is_a(holder, _NO_PARTS):
            found[key] = item
    return found


def _length(item: Any) -> int:
    """The first dimension of a tensor or an array; 0 for a scalar."""
    shape = item.shape if isinstance(item.shape, tuple) else item.shape.as_list()
    return int(shape[0]) if shape else 0


def _is_container(value: Any) -> bool:
    """Whether things may pile up in it, which they don't in a deque that is full."""
    return is_a(value, (list, dict, set, frozenset, deque)) and not is_full(value)


def _around(
    heap: Heap, small: list[tuple[Any, list[Any]]], size_of: Callable[[Any], int]
) -> dict[int, tuple[Any, list[Any], str]]:
    """Containers of things that hold few items each, at most three levels up."""
    found: dict[int, tuple[Any, list[Any], str]] = {}
    level = _alike(small, size_of)
    for _ in range(_MAX_LEVELS):
        if len(level) < _FEWEST_THINGS:
            break
        items = {id(holder): held for holder, held in level}
        above: Holders = heap.holders_of(holder for holder, _ in level)
        following = []
        for key, (holder, held) in above.items():
            inner = [item for each in held for item in items[id(each)]]
            if _is_container(holder) and len(held) >= _FEWEST_THINGS:
                if module_of_dict(holder) is None:
                    before = found[key][1] if key in found else []
                    found[key] = holder, [*before, *inner], type(held[0]).__name__
            elif not is_a(holder, _NO_PARTS):
                following.append((holder, inner))
        level = _alike(following, size_of)
    return found


def _alike(small: list[tuple[Any, list[Any]]], size_of: Callable[[Any], int]) -> list[tuple[Any, list[Any]]]:
    """Those whose class holds enough in many instances: single ones do not pile up."""
    counts, sizes = Counter(type(holder) for holder, _ in small), Counter[type]()
    for holder, held in small:
        if counts[type(holder)] >= _FEWEST_THINGS:
            sizes[type(holder)] += sum(map(size_of, held))
    return [(holder, held) for holder, held in small if sizes[type(holder)] >= _LEAST_BYTES]


def _contents(
    holder: Any,
    items: list[Any],
    within: str,
    tensor_class: Any,
    sizes: dict[int, int],
    tensor_bytes: Callable[[Any], int],
) -> Contents:
    distinct: dict[int, Any] = {id(item): item for item in items}
    by_kind: defaultdict[str, int] = defaultdict(int)
    shapes: Counter[tuple[str, str]] = Counter()
    scalars = beyond = 0
    bases: set[int] = set()
    for item in distinct.values():
        if isinstance(item, tensor_class):
            kind, size = "tensor", sizes.get(id(item)) or tensor_bytes(item)
            shape = tuple(item.shape.as_list() or ()) if item.shape.rank is not None else ()
            dtype = item.dtype.name
        else:
            kind, size, shape, dtype = "array", _array_bytes(item, bases), item.shape, item.dtype.name
            beyond += max(0, size - item.nbytes)
        by_kind[kind] += size
        scalars += not shape
        shapes[kind, f"{dtype}[{', '.join(map(str, shape))}]" if shape else f"{dtype} scalar"] += size
    most = max(by_kind, key=lambda kind: (by_kind[kind], kind), default="array")
    likes = Counter({like: size for (kind, like), size in shapes.items() if kind == most})
    return Contents(
        most,
        size_of(holder) or 0,
        sum(by_kind.values()),
        type(holder).__name__,
        likes.most_common(1)[0][0] if likes else "",
        within,
        scalars >= 0.9 * len(distinct),
        beyond,
        most=most_of(holder),
    )


def _array_bytes(array: Any, bases: set[int]) -> int:
    """Bytes of the memory that an array keeps, counted once for all arrays of the same base."""
    base = array
    while is_a(base.base, type(array)):
        base = base.base
    if id(base) in bases:
        return 0
    bases.add(id(base))
    is_file = type(base).__name__ == "memmap" or not (base.base is None or is_a(base.base, (memoryview, bytes)))
    return 0 if is_file else int(base.nbytes)
