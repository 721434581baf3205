"""All programs of the gallery: importing a module of programs adds them."""

from __future__ import annotations

from leaks import data, functions, innocent_loops, innocents, models, retained, short_fits, waiting
from leaks.kit import PROGRAMS, Program

__all__ = [
    "PROGRAMS",
    "Program",
    "data",
    "functions",
    "innocent_loops",
    "innocents",
    "models",
    "retained",
    "short_fits",
    "waiting",
]
