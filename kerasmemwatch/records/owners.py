"""Owners of memory that are not layers, and the frame that names the owner at work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "AFTER_LAYERS",
    "AUTOTUNING",
    "BASE",
    "DATASET_HANDLES",
    "EAGER_TENSORS",
    "EARLIER_MODELS",
    "FUNCTIONS",
    "INPUT_PIPELINE",
    "KEPT_TAPES",
    "LOSS",
    "METRICS",
    "NAMED_OWNERS",
    "OPTIMIZER",
    "OTHER_VARIABLES",
    "VARIABLE_HANDLES",
    "Frame",
    "Owner",
]

INPUT_PIPELINE, LOSS, METRICS, OPTIMIZER = "input pipeline", "loss", "metrics", "optimizer"
# Owner of the memory that functions hold on to.
FUNCTIONS = "functions"
VARIABLE_HANDLES, DATASET_HANDLES = "variable handles", "dataset handles"
# Buffers that Python holds and no watch knows.
EAGER_TENSORS, OTHER_VARIABLES = "eager tensors", "other variables"
# Buffers that models of earlier fits still hold.
EARLIER_MODELS = "earlier models"
# Buffers that tapes hold beyond their forward pass.
KEPT_TAPES = "kept tapes"
# Memory used to try out algorithms, for example when XLA compiles a program for a GPU.
AUTOTUNING = "autotuning"
# All of a step. Between two steps, each callback is an owner, too.
NAMED_OWNERS = frozenset(
    {
        INPUT_PIPELINE,
        LOSS,
        METRICS,
        OPTIMIZER,
        FUNCTIONS,
        VARIABLE_HANDLES,
        DATASET_HANDLES,
        EAGER_TENSORS,
        OTHER_VARIABLES,
        EARLIER_MODELS,
        KEPT_TAPES,
        AUTOTUNING,
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Owner:
    """A layer, or a named owner that is no layer; use it as a key wherever bytes are looked up by owner.

    A path alone is no key: a layer may be called "metrics". Two owners are equal if their paths are and both or neither
    are layers. The class itself does not count: the same layer may have another class in another run.

    Attributes:
        path: A layer's path, or the name of an owner such as ``METRICS``.
        class_name: Class of the layer; ``""`` if it is no layer.
    """

    path: str
    class_name: str = ""

    @classmethod
    def layer(cls, path: str) -> Owner:
        """The layer at a path, for look-ups: its class need not be known."""
        return cls(path, "Layer")

    @property
    def is_layer(self) -> bool:
        """Whether it is a layer."""
        return bool(self.class_name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Owner) and self.path == other.path and self.is_layer is other.is_layer

    def __hash__(self) -> int:
        return hash((self.path, self.is_layer))


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

    @property
    def named(self) -> str:
        """The owner if it is no layer, else ``""``: a layer may be called "metrics"."""
        return "" if self.class_name else self.owner


BASE = Frame(INPUT_PIPELINE, "", "input")
AFTER_LAYERS = Frame(LOSS, "", "forward")
