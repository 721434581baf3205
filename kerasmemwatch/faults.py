"""The one place where our own faults are swallowed: each is reported once, with its reason and consequence.

Training never fails because of us, so nothing here raises unless ``strict`` is set.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from types import TracebackType

from kerasmemwatch.compat.names import Name, missing
from kerasmemwatch.errors import MemWatchError, MissingNameError

__all__ = ["Faults"]

logger = logging.getLogger(__name__)


class Faults:
    """Collects faults; ``with faults.guard(...)`` swallows an error of the block."""

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.notes: list[str] = []
        self._reported: set[str] = set()

    def report(self, where: str, error: Exception, consequence: str) -> None:
        """Log a fault, unless one at the same place was logged before; raise it if strict.

        Args:
            where: What failed, in a word or two; faults at the same place are reported once.
            consequence: What it means for the user, and what to do.
        """
        if self.strict and not isinstance(error, MissingNameError):
            raise error
        self.remark(where, error, consequence)

    def remark(self, where: str, error: Exception, consequence: str) -> None:
        """Log a condition that is not a fault, likewise once; never raises.

        A missing private name states its own consequence, and is logged once however many features miss it.
        """
        if isinstance(error, MissingNameError):
            where, consequence, error = error.full_name, error.lost, MemWatchError(error.reason)
        if where in self._reported:
            return
        self._reported.add(where)
        reason = str(error) or type(error).__name__
        self.notes.append(f"{where}: {reason.rstrip('.')}. {consequence}")
        logger.warning(
            "%s (Training goes on.)", self.notes[-1], exc_info=error if logger.isEnabledFor(logging.DEBUG) else None
        )

    def tell_missing(self, names: Iterable[Name]) -> None:
        """Remark what is lost without private names that the installed libraries lack."""
        for error in missing(names):
            self.remark(error.full_name, error, error.lost)

    def guard(self, where: str, consequence: str) -> Guard:
        """Return a context that reports an ``Exception`` raised in it; other ``BaseException``s pass."""
        return Guard(self, where, consequence)


class Guard:
    """Context of ``Faults.guard``."""

    def __init__(self, faults: Faults, where: str, consequence: str) -> None:
        self._faults, self._where, self._consequence = faults, where, consequence

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self._faults.report(self._where, error, self._consequence)
        return True
