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
    """Contents of a buffer for a part of its life."""

    row: int  # its allocation; -1 for one without an event, which lived throughout the step
    begin: int  # the first event of the part; -1 for before the step
    end: int  # the event at which the part ends; the number of events for after the step
    buffer: KnownBuffer  # the contents


@dataclass(frozen=True)
class Lasting:
    """A buffer that lived throughout the step, without an event."""

    buffer: KnownBuffer  # its contents and address
    parts: tuple[Part, ...] = ()  # its contents over time, if they change

    @property
    def is_number(self) -> bool:
        """Whether it is a variable that may share the buffer of a number, and counts nevertheless."""
        return bool(self.buffer.key) and self.buffer.bytes <= NUMBER_BYTES
