"""What a buffer is for each part of its life: a variable, or something else. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from kerasmemwatch.attribution.live.live_buffers import KnownBuffer

__all__ = ["NUMBER_BYTES", "Lasting", "Part"]

# TensorFlow keeps the eager constant of a number, and variables that it is assigned to share its buffer. Each counts:
# the chunk of a variable's handle has more room than that.
NUMBER_BYTES = 16


@dataclass(frozen=True)
class Part:
    """What a buffer is for a part of its life.

    Attributes:
        row: Its allocation; -1 for one without an event, which lived all through the step.
        begin: The event that it is so from; -1 for before the step.
        end: The event that it is so until; the number of events for after the step.
        buffer: What it is.
    """

    row: int
    begin: int
    end: int
    buffer: KnownBuffer


@dataclass(frozen=True)
class Lasting:
    """A buffer that lived all through the step, without an event.

    Attributes:
        buffer: What it is, with where it lies.
        parts: The same over time, if that is not one thing only.
    """

    buffer: KnownBuffer
    parts: tuple[Part, ...] = ()

    @property
    def is_number(self) -> bool:
        """Whether it is a variable that may share its buffer, a number's, and counts nevertheless."""
        return bool(self.buffer.key) and self.buffer.bytes <= NUMBER_BYTES
