"""Who may own memory beside the layers, and the frame that says who is at work. Values only."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["AFTER_LAYERS", "BASE", "FUNCTIONS", "INPUT_PIPELINE", "LOSS", "METRICS", "OPTIMIZER", "Frame"]

INPUT_PIPELINE, LOSS, METRICS, OPTIMIZER = "input pipeline", "loss", "metrics", "optimizer"
# The owner of what functions keep.
FUNCTIONS = "functions"


class Frame(NamedTuple):
    """An owner at work.

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
