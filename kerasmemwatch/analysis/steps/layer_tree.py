"""Layer paths as lines of a tree: each layer is below its parent and indented."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["TreeLine", "tree_lines"]


@dataclass(frozen=True)
class TreeLine:
    """One line."""

    depth: int  # number of its ancestors' lines
    label: str  # the part of its path below its parent line's
    path: str  # its path


@dataclass
class _Node:
    path: str
    is_asked: bool = False
    inner: dict[str, _Node] = field(default_factory=dict)


def tree_lines(paths: Iterable[str]) -> list[TreeLine]:
    """A line for each path, in order, and for each ancestor of several.

    An ancestor of only one path that is not itself a path shares that path's line.
    """
    root = _Node("")
    for path in paths:
        node, place = root, ""
        for name in path.split("/"):
            place = f"{place}/{name}" if place else name
            node = node.inner.setdefault(name, _Node(place))
        node.path, node.is_asked = path, True
    lines = []
    waiting = [(0, name, node) for name, node in reversed(root.inner.items())]
    while waiting:
        depth, label, node = waiting.pop()
        while not node.is_asked and len(node.inner) == 1:
            [(name, node)] = node.inner.items()
            label = f"{label}/{name}"
        lines.append(TreeLine(depth, label, node.path))
        waiting += [(depth + 1, name, inner) for name, inner in reversed(node.inner.items())]
    return lines
