"""A step that ran out of memory: what it asked for, what was alive, and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kerasmemwatch.records.layer_memory import LayerMemory

__all__ = ["Death", "Request", "Suggestion"]

# An estimate has to show this much more than was asked for.
_MARGIN = 0.15


@dataclass(frozen=True)
class Request:
    """The allocation that failed, as far as the error tells.

    Attributes:
        kind: ``"op"`` (an operation's tensor), ``"program"`` (an XLA program's block, requested as it runs),
            ``"compile"`` (a trial while XLA compiles), ``"host"`` (memory of Python's or numpy's).
        num_bytes: Size of the request; ``None`` if unknown.
        rounded: The size as the error writes it, if it is rounded: ``"195.04MiB"``.
        shape: Shape of the tensor; empty if unknown or a scalar.
        dtype: Name of the tensor's type; ``""`` if unknown.
        op: Name of the operation in its graph, or type of an eager operation; ``""`` if unknown.
        device: TensorFlow's short name, ``"GPU:0"``; ``""`` if the error does not tell.
        allocator: Name of the allocator; ``""`` if the error does not tell.
    """

    kind: str
    num_bytes: int | None = None
    rounded: str = ""
    shape: tuple[int, ...] = ()
    dtype: str = ""
    op: str = ""
    device: str = ""
    allocator: str = ""


@dataclass(frozen=True)
class Suggestion:
    """A change that may make the step fit. Its figures are estimates.

    Attributes:
        words: What to do.
        code: The change as code.
        saves_bytes: Estimated bytes that the step's peak falls by; ``None`` if unknown.
        fits: Whether the step fits then, by the estimate; ``None`` if unknown.
    """

    words: str
    code: str = ""
    saves_bytes: int | None = None
    fits: bool | None = None


@dataclass(frozen=True)
class Death:
    """A step that ran out of memory.

    Attributes:
        step: The sample's ``step``.
        stage: ``"train"``, ``"test"`` or ``"predict"``.
        epoch: 0-based epoch, ``None`` outside training.
        error: Class of the exception.
        request: The allocation that failed.
        layer: Path of the layer, or name of another owner, that asked; ``""`` if unknown.
        class_name: Class of the layer; ``""`` if it is no layer, or unknown.
        phase: ``"forward"``, ``"backward"``, ``"update"`` or ``"input"``; ``""`` if unknown.
        layer_from: How the layer is known, in words; ``""`` if it is not.
        mode: ``"graph"``, ``"eager"`` or ``"xla"``; ``""`` if unknown.
        batch: Rows of the batch; ``None`` if unknown.
        in_use_bytes: The most that the allocator had handed out in this step, measured; ``None`` if unknown.
        limit_bytes: Most that the allocator may hand out; ``None`` if unknown.
        by_category: What is alive at the step's peak, by category.
        layers: The three layers that hold most of it.
        figures_from: Where ``by_category``, ``layers`` and ``peak_bytes`` come from, in words.
        peak_bytes: What the step needs at its peak, as far as that is known; ``None`` if only parts are known.
        free_then_bytes: What was free when the request was made, estimated from a traced step; ``None`` if unknown.
        suggestions: Changes, the most likely to fit first.
        fitted_batch: Rows of the batch of the first fit that ended after this; ``None`` if unknown or none has.
        followed: Whether a fit has ended since.
        run: Name of the run that it happened in; ``""`` if that is this one.
    """

    step: int
    stage: str
    epoch: int | None = None
    error: str = ""
    request: Request = Request("op")
    layer: str = ""
    class_name: str = ""
    phase: str = ""
    layer_from: str = ""
    mode: str = ""
    batch: int | None = None
    in_use_bytes: int | None = None
    limit_bytes: int | None = None
    by_category: Mapping[str, int] = field(default_factory=dict)
    layers: tuple[LayerMemory, ...] = ()
    figures_from: str = ""
    peak_bytes: int | None = None
    free_then_bytes: int | None = None
    suggestions: tuple[Suggestion, ...] = ()
    fitted_batch: int | None = None
    followed: bool = False
    run: str = ""

    @property
    def is_fragmented(self) -> bool:
        """Whether enough was free in total, but no free piece was large enough."""
        left, asked = self.free_bytes, self.request.num_bytes
        return asked is not None and ((left is not None and left >= asked) or self.is_fragmented_then)

    @property
    def is_fragmented_then(self) -> bool:
        """Whether a traced step tells so: what was in use at most in the step may have been free again by then."""
        left, asked = self.free_then_bytes, self.request.num_bytes
        return left is not None and asked is not None and left >= asked * (1 + _MARGIN)

    @property
    def free_bytes(self) -> int | None:
        """What was free when most was in use; ``None`` if unknown."""
        if self.in_use_bytes is None or self.limit_bytes is None:
            return None
        return max(0, self.limit_bytes - self.in_use_bytes)

    @property
    def missing_bytes(self) -> int | None:
        """How much the request exceeds what was free; ``None`` if unknown, or if nothing was missing in total."""
        left, asked = self.free_bytes, self.request.num_bytes
        return None if left is None or asked is None or self.is_fragmented else asked - left
