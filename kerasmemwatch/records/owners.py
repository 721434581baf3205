"""Owners of memory that are not layers, and the frame that names the owner at work."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["AFTER_LAYERS", "BASE", "FUNCTIONS", "INPUT_PIPELINE", "LOSS", "METRICS", "OPTIMIZER", "Frame"]

INPUT_PIPELINE, LOSS, METRICS, OPTIMIZER = "input pipeline", "loss", "metrics", "optimizer"
# Owner of the memory that functions hold on to.
FUNCTIONS = "functions"


class Frame(NamedTuple):
    """An owner and the phase it works in: one entry of the owner stack (not a Python frame).

    Attributes:
        owner: A layer's path or a named owner; ``""`` where only the phase is known.
        class_name: Class of the layer, else ``""``.
        phase: ``"input"``, ``"forward"``, ``"backward"`` or ``"update"``.
    """

    owner: str
    class_name: str
    phase: str


BASE = Frame(INPUT_PIPELINE, "", "input")
AFTER_LAYERS = Frame(LOSS, "", "forward")
