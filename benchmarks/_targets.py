"""Targets, as lines that say whether they were reached."""

from __future__ import annotations

__all__ = ["at_least", "at_most"]


def at_most(what: str, value: float, limit: float, unit: str) -> str:
    """A line for a figure that is to stay at or below a limit.

    Example:
        >>> at_most("own growth", 3.25, 8, "MiB")
        'target: own growth at most 8 MiB: reached (3.25 MiB)'
    """
    return _line(f"{what} at most {limit:g} {unit}", value <= limit, f"{value:.2f} {unit}")


def at_least(what: str, value: float, limit: float, unit: str) -> str:
    """A line for a figure that is to be at or above a limit."""
    return _line(f"{what} at least {limit:g} {unit}", value >= limit, f"{value:.2f} {unit}")


def _line(wanted: str, reached: bool, found: str) -> str:
    return f"target: {wanted}: {'reached' if reached else 'NOT reached'} ({found})"
