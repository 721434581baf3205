"""Which ``tf.function``s were traced how often, and in what their traces differ."""

from __future__ import annotations

import linecache
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from types import CodeType, FunctionType, MethodType
from typing import Any

from kerasmemwatch.compat.tensorflow import CONCRETE_FUNCTIONS
from kerasmemwatch.leaks.evidence.reads import attributes_of, is_a

__all__ = ["Difference", "TracedFunction", "traced_functions"]

_MAX_TRACES, _MAX_SHOWN, _MAX_DECORATORS = 64, 4, 20


@dataclass(frozen=True)
class Difference:
    """One argument that differs between traces.

    Attributes:
        name: The argument.
        kind: ``"value"`` of a Python number or string, ``"shape"`` or ``"dtype"`` of a tensor, ``"object"``, or
            ``"type"`` for others.
        shown: Some of what it was.
    """

    name: str
    kind: str
    shown: tuple[str, ...]


@dataclass(frozen=True)
class TracedFunction:
    """All ``tf.function``s that are made of one Python function.

    Attributes:
        name: The Python function's qualified name.
        file: Its source.
        line: Its first line.
        num_traces: Traces of all of them that are alive.
        num_objects: How many ``tf.function``s there are.
        differences: Arguments in which the traces of one of them differ.
    """

    name: str
    file: str
    line: int
    num_traces: int
    num_objects: int
    differences: tuple[Difference, ...] = ()


def traced_functions(functions: Iterable[Any]) -> tuple[TracedFunction, ...]:
    """Group live ``tf.function``s by the Python function they are made of, those with the most traces first."""
    groups: defaultdict[tuple[str, int, str], list[Any]] = defaultdict(list)
    for function in functions:
        python = _undecorated(function.python_function)
        code = python.__code__ if python is not None else None
        name = python.__qualname__ if python is not None else str(function.name)
        groups[code.co_filename if code else "", _first_line(code) if code else 0, name].append(function)
    found = []
    for (file, line, name), members in groups.items():
        counts = [member.experimental_get_tracing_count() for member in members]
        if sum(counts):
            most = members[counts.index(max(counts))]
            differences = _differences(most) if max(counts) > 1 else ()
            found.append(TracedFunction(name, file, line, sum(counts), len(members), differences))
    return tuple(sorted(found, key=lambda each: -each.num_traces))


def _undecorated(python: Any) -> FunctionType | None:
    """The function as it was written; ``None`` of other callables."""
    for _ in range(_MAX_DECORATORS):
        python = python.__func__ if is_a(python, MethodType) else python
        inner = (attributes_of(python) or {}).get("__wrapped__")
        if inner is None:
            break
        python = inner
    return python if is_a(python, FunctionType) else None


def _first_line(code: CodeType) -> int:
    """The line of ``def``, below the decorators."""
    lines = linecache.getlines(code.co_filename)[code.co_firstlineno - 1 :][:_MAX_DECORATORS]
    below = (number for number, line in enumerate(lines) if line.lstrip().startswith(("def ", "async def ")))
    return int(code.co_firstlineno) + next(below, 0)


def _differences(function: Any) -> tuple[Difference, ...]:
    if CONCRETE_FUNCTIONS.is_missing:
        return ()
    arguments: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for concrete in CONCRETE_FUNCTIONS.of(function)()[-_MAX_TRACES:]:
        for name, parameter in concrete.function_type.parameters.items():
            constraint = parameter.type_constraint
            arguments[str(name)].setdefault(str(constraint), constraint)
    return tuple(_difference(name, list(values.values())) for name, values in arguments.items() if len(values) > 1)


def _difference(name: str, constraints: list[Any]) -> Difference:
    first = type(constraints[0]).__name__
    if first == "Literal":
        return Difference(name, "value", _few(str(each).removeprefix("Literal")[1:-1] for each in constraints))
    if all(hasattr(each, "shape") and hasattr(each, "dtype") for each in constraints):
        dtypes = {str(each.dtype.name) for each in constraints}
        if len(dtypes) > 1:
            return Difference(name, "dtype", _few(sorted(dtypes)))
        return Difference(name, "shape", _few(str(each.shape) for each in constraints))
    if "Weakref" in first:
        return Difference(name, "object", ())
    return Difference(name, "type", _few(" ".join(str(each).split())[:120] for each in constraints))


def _few(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value[:120] for value in values))[:_MAX_SHOWN]
