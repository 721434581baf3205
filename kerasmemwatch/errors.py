"""Errors that kerasmemwatch raises: one base class, each also the matching builtin.

Messages follow one pattern: what was expected, what was received, what to do.
"""

from __future__ import annotations

__all__ = [
    "InvalidArgumentError",
    "InvalidTypeError",
    "LogDirError",
    "MemWatchError",
    "MemoryBudgetExceededError",
    "MemoryGrowthError",
    "MissingDependencyError",
    "MissingNameError",
    "ProbeUnavailableError",
    "RecordingFormatError",
    "RecordingNotFoundError",
    "RecordingVersionError",
    "SessionError",
]


class MemWatchError(Exception):
    """Base class of every error that kerasmemwatch raises on purpose."""


class InvalidArgumentError(MemWatchError, ValueError):
    """An argument has the right type but an invalid value."""


class InvalidTypeError(MemWatchError, TypeError):
    """An argument has the wrong type."""


class LogDirError(MemWatchError, OSError):
    """The log directory cannot be used: a file is in the way, it is not writable, or the working directory is gone."""


class RecordingNotFoundError(MemWatchError, FileNotFoundError):
    """There is no recording (or no run of that name) under the log directory."""


class RecordingFormatError(MemWatchError, ValueError):
    """Bytes are not a valid part of a recording."""


class RecordingVersionError(RecordingFormatError):
    """The recording was written by a newer kerasmemwatch than this one."""


class SessionError(MemWatchError, RuntimeError):
    """A ``MemorySession`` is used out of order, for example a step outside the ``with``."""


class MissingDependencyError(MemWatchError, ImportError):
    """An optional package or a file of this package is missing; the message has the command that installs it."""


class MissingNameError(MemWatchError, ImportError):
    """A private name of a library is not in the installed release; what needs it is left out.

    Args:
        name: The name, with its module.
        reason: Which release lacks it.
        lost: What is lost without it.
    """

    def __init__(self, name: str, reason: str = "", lost: str = "") -> None:
        super().__init__(f"{name} is {reason}" if reason else name)
        self.full_name, self.reason, self.lost = name, reason, lost


class MemoryBudgetExceededError(MemWatchError, MemoryError):
    """``MemoryBudget(action="raise")`` stopped a run before it reached its limit."""


class MemoryGrowthError(MemWatchError, AssertionError):
    """Memory grows where a test says that it must not."""


class ProbeUnavailableError(MemWatchError, RuntimeError):
    """Something cannot be measured on this machine or in this configuration.

    Args:
        reason: Why the figures are unknown.
        remedy: What the user can do about it; empty if nothing helps.

    Example:
        >>> error = ProbeUnavailableError("No NVIDIA driver.", "Install the driver.")
        >>> str(error)
        'No NVIDIA driver. Install the driver.'
        >>> error.remedy
        'Install the driver.'
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason} {remedy}".strip())
        self.reason = reason
        self.remedy = remedy
