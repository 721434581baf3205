"""The line of the user's source that adds to a container or keeps an object, found by reading the source."""

from __future__ import annotations

import ast
import itertools
import linecache
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Place", "adding_line", "calling_line", "chained_lines"]

_ADD = {"append", "extend", "add", "appendleft", "insert", "update", "setdefault", "put", "put_nowait", "extendleft"}
_ADD_TO_FIRST = {"heappush", "heappushpop", "insort", "insort_left", "insort_right"}
_MAX_CHARS, _MAX_SOURCE = 2_000_000, 200


@dataclass(frozen=True)
class Place:
    """A line of source.

    Attributes:
        file: Path of the file.
        line: 1-based number of the line.
        source: The line's text, without indentation.
    """

    file: str
    line: int
    source: str = ""

    @classmethod
    def read(cls, file: str, line: int) -> Place:
        """A line with its text, if that can be read."""
        return cls(file, line, linecache.getline(file, line).strip()[:_MAX_SOURCE])


def adding_line(file: str, name: str, within: int | str = 0, *, assigned: bool = True) -> Place | None:
    """The line that adds to what a name holds, or else the last that assigns it; ``None`` if there is none.

    Args:
        file: Path of the source.
        name: A variable, or an attribute.
        within: A line, the innermost function around which that uses the name is looked at; or name of a class, which
            is looked at before the rest of the file; 0 for the whole file.
        assigned: Whether a line that assigns the name will do.
    """
    tree = _parsed(file)
    if tree is None or not name:
        return None
    scopes = [each for each in ast.walk(tree) if within and _is_around(each, within)][::-1]
    uses = next(filter(None, (list(_uses(scope, name)) for scope in [*scopes, tree])), [])
    found = sorted(use for use in uses if assigned or use[0] == 0)
    return Place.read(file, found[0][1]) if found else None


def calling_line(file: str, module: str, function: str) -> Place | None:
    """The first line that calls a module's function by its full name; ``None`` if there is none."""
    tree = _parsed(file)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)] if tree is not None else []
    lines = [call.lineno for call in calls if _method(call) == function and _name(call.func) == module]
    return Place.read(file, min(lines)) if lines else None


def chained_lines(file: str, method: str, after: str) -> list[Place]:
    """The lines that call a method on what another one returned, as ``data.repeat().map(f).cache()`` does."""
    tree = _parsed(file)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)] if tree is not None else []
    lines = {call.lineno for call in calls if method == _method(call) and after in _receivers(call)}
    return [Place.read(file, line) for line in sorted(lines)]


def _method(node: ast.AST) -> str:
    return node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""


def _name(function: ast.AST) -> str:
    """The name whose attribute a function is."""
    value = function.value if isinstance(function, ast.Attribute) else None
    return value.id if isinstance(value, ast.Name) else ""


def _receivers(call: ast.Call) -> Iterator[str]:
    """The methods whose results a method is called on, in one expression."""
    node: ast.AST = call
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        node = node.func.value
        yield _method(node)


def _parsed(file: str) -> ast.AST | None:
    text = "".join(linecache.getlines(file))
    if not text or len(text) > _MAX_CHARS:
        return None
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _is_around(node: ast.AST, within: int | str) -> bool:
    if isinstance(within, str):
        return isinstance(node, ast.ClassDef) and node.name == within
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    return first <= within <= (node.end_lineno or first)


def _uses(scope: ast.AST, name: str) -> Iterator[tuple[int, int]]:
    """Lines that add to the name (0), or assign it (1)."""
    for node in ast.walk(scope):
        if isinstance(node, (ast.Call, ast.AugAssign)):
            if any(_is_name(each, name) for each in _added_to(node)):
                yield 0, node.lineno
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            named = (item.optional_vars for item in node.items if item.optional_vars is not None)
            if any(_is_name(each, name) for target in named for each in _parts(target)):
                yield 1, node.lineno
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in itertools.chain.from_iterable(map(_parts, targets)):
                if isinstance(target, ast.Subscript) and _is_name(target.value, name):
                    yield 0, node.lineno
                elif _is_name(target, name):
                    # What is made anew of itself and more, as by numpy.concatenate, is added to.
                    adds = node.value is not None and any(_is_name(each, name) for each in _names(node.value))
                    yield 0 if adds else 1, node.lineno


def _added_to(node: ast.Call | ast.AugAssign) -> Iterator[ast.AST]:
    """What is added to: ``losses`` of ``losses.append(1)``, ``losses += more`` or ``heapq.heappush(losses, 1)``.

    A variable is, if it is assigned what is made of itself: ``bank.assign(tf.concat([bank, more], 0))``.
    """
    if isinstance(node, ast.AugAssign):
        yield node.target
        return
    function = node.func
    if isinstance(function, ast.Attribute) and function.attr in _ADD:
        yield function.value
    if isinstance(function, ast.Attribute) and function.attr == "assign":
        own = ast.dump(function.value)
        if any(ast.dump(each) == own for value in node.args for each in _names(value)):
            yield function.value
    called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if called in _ADD_TO_FIRST:
        yield from node.args[:1]


def _parts(target: ast.expr) -> Iterator[ast.expr]:
    """The targets of an assignment to several, or the one."""
    if isinstance(target, (ast.Tuple, ast.List)):
        yield from itertools.chain.from_iterable(map(_parts, target.elts))
    else:
        yield target.value if isinstance(target, ast.Starred) else target


def _names(node: ast.AST) -> Iterator[ast.AST]:
    return (each for each in ast.walk(node) if isinstance(each, (ast.Name, ast.Attribute)))


def _is_name(node: ast.AST, name: str) -> bool:
    while isinstance(node, ast.Subscript):
        node = node.value
    return (isinstance(node, ast.Name) and node.id == name) or (isinstance(node, ast.Attribute) and node.attr == name)
