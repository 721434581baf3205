"""The options of a watch, checked once, before any training."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kerasmemwatch.errors import InvalidArgumentError, InvalidTypeError
from kerasmemwatch.probes.base import Probe
from kerasmemwatch.storage.files.file_system import check_log_dir
from kerasmemwatch.storage.run_store import check_run_name
from kerasmemwatch.storage.sinks.base import Sink

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """The arguments of ``MemoryWatch``; see there.

    Raises:
        InvalidTypeError: If an argument has the wrong type.
        InvalidArgumentError: If an argument's value is invalid.
        LogDirError: If the log dir cannot be used.
    """

    log_dir: str | None = "logs"
    run_name: str | None = None
    tags: tuple[str, ...] = ()
    sample_every: int = 1
    reset_peak: bool = True
    trace: Any = "auto"
    detect_leaks: bool | str = True
    add_to_logs: bool = False
    verbose: Any = "auto"
    probes: Sequence[Probe] | None = None
    sinks: Sequence[Sink] | None = None
    strict: bool = False
    release_dead_models: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_dir", _log_dir(self.log_dir))
        object.__setattr__(self, "tags", _tags(self.tags))
        if self.run_name is not None:
            check_run_name(self.run_name)
        if isinstance(self.sample_every, bool) or not isinstance(self.sample_every, int):
            raise _wrong_type("sample_every", "a whole number of steps", self.sample_every)
        if self.sample_every < 1:
            raise InvalidArgumentError(
                f"Expected sample_every to be at least 1. Received: sample_every={self.sample_every}."
            )
        for name in ("reset_peak", "add_to_logs", "strict", "release_dead_models"):
            if not isinstance(getattr(self, name), bool):
                raise _wrong_type(name, "True or False", getattr(self, name))
        if not isinstance(self.detect_leaks, bool) and self.detect_leaks != "raise":
            raise _wrong_type("detect_leaks", "True, False or 'raise'", self.detect_leaks)
        if not isinstance(self.verbose, (str, int)) or self.verbose not in ("auto", 0, 1, 2):
            raise InvalidArgumentError(
                f"Expected verbose to be 'auto', True or False. Received: verbose={self.verbose!r}."
            )
        _check_trace(self.trace)
        _check_members("probes", self.probes, ("open", "batch_begin", "batch_end", "epoch_end", "close"))
        _check_members("sinks", self.sinks, ("write", "close"))


def _log_dir(log_dir: Any) -> str | None:
    if log_dir is None:
        return None
    if not isinstance(log_dir, (str, os.PathLike)) or isinstance(os.fspath(log_dir), bytes):
        raise _wrong_type("log_dir", "a path or None", log_dir)
    path = os.fspath(log_dir)
    if not path or "\0" in path or not _encodable(path):
        raise InvalidArgumentError(f"Expected log_dir to be a path or None. Received: log_dir={path!r}.")
    check_log_dir(path)
    return path


def _encodable(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _tags(tags: Any) -> tuple[str, ...]:
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise _wrong_type("tags", "a sequence of strings", tags)
    found = tuple(tags)
    for tag in found:
        if not isinstance(tag, str):
            raise _wrong_type("tags", "a sequence of strings", tag)
    return found


def _check_trace(trace: Any) -> None:
    if trace is None or isinstance(trace, bool) or (isinstance(trace, str) and trace == "auto"):
        return
    steps = list(trace) if isinstance(trace, Iterable) and not isinstance(trace, str) else None
    if steps is None or any(isinstance(step, bool) or not isinstance(step, int) or step < 1 for step in steps):
        raise InvalidArgumentError(
            f"Expected trace to be 'auto', False or a list of steps of at least 1. Received: trace={trace!r}."
        )


def _check_members(name: str, members: Any, methods: tuple[str, ...]) -> None:
    if members is None:
        return
    if isinstance(members, str) or not isinstance(members, Sequence):
        raise _wrong_type(name, "a list or None", members)
    for member in members:
        missing = [method for method in methods if not callable(getattr(member, method, None))]
        if missing:
            raise InvalidTypeError(
                f"Expected every one of {name} to have the methods {', '.join(methods)}. "
                f"Received: {member!r} without {', '.join(missing)}."
            )


def _wrong_type(name: str, expected: str, value: Any) -> InvalidTypeError:
    return InvalidTypeError(
        f"Expected {name} to be {expected}. Received: {name}={value!r} (of type {type(value).__name__})."
    )
