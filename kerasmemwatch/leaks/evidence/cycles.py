"""Which reference cycles of the user's make what only Python's collector frees."""

from __future__ import annotations

import gc
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType, FunctionType
from typing import Any

from kerasmemwatch.attribution.variables.live_objects import hashable
from kerasmemwatch.leaks.evidence.places import Place, adding_line
from kerasmemwatch.leaks.evidence.reads import attributes_of, file_of
from kerasmemwatch.leaks.evidence.roots import is_user_file

__all__ = ["Cycle", "find_cycle"]

# Of all unreachable objects; fewer of the user's are no more than what cycles of Keras' own hold.
_LEAST_SHARE, _FEWEST = 0.04, 3
_SAMPLE, _MAX_KINDS, _MAX_VISITED = 10, 3, 500


@dataclass(frozen=True)
class Cycle:
    """Objects of one kind that hold themselves.

    Attributes:
        what: What they are: ``"objects of class Result"``, ``"functions named visit that hold themselves"``.
        count: How many of them were unreachable.
        attribute: The one that closes the cycle; ``""`` if a function's variable does.
        place: The line that makes the cycle.
    """

    what: str
    count: int
    attribute: str
    place: Place


def find_cycle(unreachable: Sequence[Any]) -> Cycle | None:
    """The user's commonest cycle; ``None`` if there is none. No code of the objects' classes runs.

    Args:
        unreachable: All objects that a full collection found.
    """
    inside, unreachable = set(map(id, unreachable)), hashable(unreachable)
    fewest = max(_FEWEST, int(_LEAST_SHARE * len(unreachable)))
    return next(_of_classes(unreachable, inside, fewest), None) or next(_of_code(unreachable, inside, fewest), None)


def _of_classes(unreachable: Sequence[Any], inside: set[int], fewest: int) -> Iterator[Cycle]:
    counts = Counter(map(type, unreachable)).most_common()
    kinds = [(kind, count) for kind, count in counts if count >= fewest and is_user_file(_file(kind))]
    for kind, count in kinds[:_MAX_KINDS]:
        some = [each for each in unreachable if type(each) is kind][-_SAMPLE:]
        names = Counter(name for each in some for name in _closing(each, inside))
        for name, _ in names.most_common():
            place = adding_line(_file(kind), name, kind.__name__)
            if place is not None:
                yield Cycle(f"objects of class {kind.__name__}", count, name, place)


def _of_code(unreachable: Sequence[Any], inside: set[int], fewest: int) -> Iterator[Cycle]:
    """Functions that hold themselves, and calls whose variables hold an exception that was raised in them.

    Of each kind some are looked at.
    """
    found: defaultdict[tuple[str, str, int], list[Any]] = defaultdict(list)
    for each in unreachable:
        if type(each) is FunctionType:
            code, line, what = each.__code__, each.__code__.co_firstlineno, "functions named {} that hold themselves"
        elif type(each) is FrameType:
            code, line, what = each.f_code, each.f_lineno, "calls of {} that an exception of their own keeps"
        else:
            continue
        if is_user_file(code.co_filename):
            found[what.format(code.co_name), code.co_filename, line].append(each)
    for (what, file, line), alike in sorted(found.items(), key=lambda item: -len(item[1])):
        if len(alike) < fewest:
            return
        some = alike[-_SAMPLE:]
        if all(_reaches(each, each, inside) for each in some):
            yield Cycle(what, len(alike), "", Place.read(file, line))


def _file(kind: type) -> str:
    return file_of(sys.modules.get(str(kind.__module__)))


def _closing(owner: Any, inside: set[int]) -> Iterator[str]:
    """The attributes through which an object refers to itself."""
    for name, value in (attributes_of(owner) or {}).items():
        if value is owner or (id(value) in inside and _reaches(value, owner, inside)):
            yield name


def _reaches(start: Any, end: Any, inside: set[int]) -> bool:
    """Whether an object refers to another through some of those inside."""
    seen, due = {id(start)}, [start]
    while due and len(seen) < _MAX_VISITED:
        for each in gc.get_referents(due.pop()):
            if each is end:
                return True
            if id(each) in inside and id(each) not in seen:
                seen.add(id(each))
                due.append(each)
    return False
