"""Parts of a buffer's life: what it holds in each, a variable or something else. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from kerasmemwatch.attribution.live.live_buffers import KnownBuffer

__all__ = ["NUMBER_BYTES", "Lasting", "Part"]

# TensorFlow caches the eager constant of a number, and variables that are assigned the number share its buffer. Each
# counts: the chunk of a variable's handle has more room than that.
NUMBER_BYTES = 16


@dataclass(frozen=True)
class Part:
    """Contents of a buffer for a part of its life.

    Attributes:
        row: Its allocation; -1 for one without an event, which lived throughout the step.
        begin: The first event of the part; -1 for before the step.
        end: The event at which the part ends; the number of events for after the step.
        buffer: The contents.
    """

    row: int
    begin: int
    end: int
    buffer: KnownBuffer


@dataclass(frozen=True)
class Lasting:
    """A buffer that lived throughout the step, without an event.

    Attributes:
        buffer: Its contents and address.
        parts: Its contents over time, if they change.
    """

    buffer: KnownBuffer
    parts: tuple[Part, ...] = ()

    @property
    def is_number(self) -> bool:
        """Whether it is a variable that may share the buffer of a number, and counts nevertheless."""
        return bool(self.buffer.key) and self.buffer.bytes <= NUMBER_BYTES
