"""Functions that close over tensors or arrays, grouped by the code that is made into a function again and again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from types import CellType, FunctionType
from typing import Any

from kerasmemwatch.compat.converted_code import origin_of
from kerasmemwatch.leaks.evidence.heap import Heap
from kerasmemwatch.leaks.evidence.places import Place, adding_line
from kerasmemwatch.leaks.evidence.roots import is_user_file

__all__ = ["by_code", "functions_over", "line_of_variable", "variable_of"]

_FEWEST = 8


def functions_over(heap: Heap, holders: Sequence[tuple[Any, list[Any]]]) -> list[tuple[Any, list[Any]]]:
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


def by_code(functions: Sequence[tuple[Any, list[Any]]]) -> Iterator[tuple[list[FunctionType], list[Any]]]:
    """Functions of the user's that were made of one code, and what all of them close over."""
    groups: defaultdict[int, list[tuple[Any, list[Any]]]] = defaultdict(list)
    for function, items in functions:
        if is_user_file(function.__code__.co_filename):
            groups[id(function.__code__)].append((function, items))
    for group in groups.values():
        if len(group) >= _FEWEST:
            yield [function for function, _ in group], [item for _, items in group for item in items]


def variable_of(function: FunctionType, item: Any) -> str:
    """The variable in which a function holds an item; ``""`` if it does not."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            if cell.cell_contents is item:
                return name
        except ValueError:  # not filled yet
            continue
    return ""


def line_of_variable(function: FunctionType, name: str) -> Place:
    """The line that assigns a variable which a function closes over, or else the function's first."""
    file, line = origin_of(function.__code__.co_filename, function.__code__.co_firstlineno)
    return adding_line(file, name, line) or Place.read(file, line)
