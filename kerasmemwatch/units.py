"""Parsing and formatting of bytes with binary prefixes; elsewhere, bytes are ``int``."""

from __future__ import annotations

import math
import re

from kerasmemwatch.errors import InvalidArgumentError, InvalidTypeError

__all__ = ["GIB", "KIB", "MIB", "a_unit", "floored_percent", "format_bytes", "format_share", "parse_bytes"]

KIB = 1024
MIB = 1024**2
GIB = 1024**3

# IEC 80000-13 prefixes are powers of 1024; "MB" and the like are powers of 1000.
_UNITS = {
    "": 1,
    "b": 1,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
    "tib": 1024**4,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def a_unit(unit: str) -> str:
    """A unit with its article, as in a rate.

    Example:
        >>> a_unit("step"), a_unit("epoch"), a_unit("evaluate")
        ('a step', 'an epoch', 'an evaluate')
    """
    return f"{'an' if unit[:1] in tuple('aeio') else 'a'} {unit}"


def format_bytes(value: float | None, *, signed: bool = False) -> str:
    """Format bytes with a binary prefix and three or four digits."""
    if value is None or math.isnan(value):
        return "unknown"
    sign = "-" if value < 0 else "+" if signed else ""
    size = abs(value)
    if size < KIB:
        return f"{sign}{size:.0f} B" if size == int(size) else f"{sign}{size:.1f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1023.95 or unit == "TiB":
            break
    return f"{sign}{size:.1f} {unit}"


def floored_percent(share: float) -> str:
    """Format a share in percent, rounded down, so that only a full share reads 100%.

    Example:
        >>> floored_percent(0.9999), floored_percent(1.0)
        ('99.9%', '100.0%')
    """
    return f"{math.floor(share * 1000 + 1e-9) / 10:.1f}%"


def format_share(share: float) -> str:
    """A share in percent; what is little is not called nothing.

    Example:
        >>> format_share(0.123), format_share(0.0001), format_share(0)
        ('12.3%', '<0.1%', '0.0%')
    """
    return f"{share:.1%}" if share >= 0.0005 or not share else "<0.1%"


def parse_bytes(text: str | int, *, name: str = "size") -> int:
    """Parse a size such as ``"12 GiB"``, ``"500MB"`` or ``1024``.

    Args:
        text: Bytes as an ``int``, or a number with a unit. ``KiB``, ``MiB``, ``GiB`` and ``TiB`` are
            powers of 1024 (IEC 80000-13); ``kB``, ``MB``, ``GB`` and ``TB`` are powers of 1000.

    Raises:
        InvalidTypeError: If ``text`` is neither a string nor an integer.
        InvalidArgumentError: If it is not a size, or not positive.
    """
    if isinstance(text, bool) or not isinstance(text, (str, int)):
        raise InvalidTypeError(
            f"Expected {name} to be bytes (int) or a size such as '12 GiB'. "
            f"Received: {name}={text!r} (of type {type(text).__name__})."
        )
    if isinstance(text, int):
        size = text
    else:
        match = _SIZE.fullmatch(text)
        unit = _UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise InvalidArgumentError(
                f"Expected {name} to be a size such as '12 GiB', '500 MB' or '2048'. Received: {name}={text!r}."
            )
        size = int(float(match[1]) * unit)
    if size <= 0:
        raise InvalidArgumentError(f"Expected {name} to be greater than 0 bytes. Received: {name}={text!r}.")
    return size
