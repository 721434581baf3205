"""Names that users give, such as those of layers, for people to read."""

from __future__ import annotations

__all__ = ["printable", "shortened"]


def printable(text: str) -> str:
    r"""A text without control characters, which must reach neither a terminal nor HTML."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text)


def shortened(name: str, most: int = 32) -> str:
    """Shorten a name by dropping its middle, which says less than its end."""
    if len(name) <= most:
        return name
    head = most // 3
    return f"{name[:head]}...{name[len(name) - (most - head - 3) :]}"
