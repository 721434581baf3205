"""How a run's process ended while it recorded, and what its memory was then."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KILLED", "RUNNING", "TERMINATED", "Ending"]

# Values of ``RunInfo.ending``.
RUNNING, KILLED, TERMINATED = "running", "killed", "SIGTERM"


@dataclass(frozen=True)
class Ending:
    """A run that has not ended properly.

    Attributes:
        how: ``"running"``, ``"killed"`` (its process ended abruptly), or ``"SIGTERM"``.
        step: The last recorded step.
        worker: The worker's name; ``""`` if it trained alone.
        host_bytes: The process's RSS at that step and its children's last known memory; ``None`` if unknown.
        limit_bytes: What the process may use; ``None`` if unknown.
        limit_source: Where the limit comes from; ``""`` if unknown.
        was_near: Whether the limit was near; ``None`` if unknown.
        grown: By series, bytes that were added since ``since_step``, the most first.
        since_step: The first step after the warm-up; ``None`` if there are too few steps.
    """

    how: str
    step: int
    worker: str = ""
    host_bytes: int | None = None
    limit_bytes: int | None = None
    limit_source: str = ""
    was_near: bool | None = None
    grown: tuple[tuple[str, int], ...] = ()
    since_step: int | None = None

    @property
    def share(self) -> float | None:
        """Share of the limit in use; ``None`` if unknown."""
        return None if self.host_bytes is None or not self.limit_bytes else self.host_bytes / self.limit_bytes
