"""All probes read as one row of values; a probe's fault becomes an unknown value here.

The first ``open`` fixes the layout: a probe that fails later leaves NaN in its columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kerasmemwatch.errors import InvalidTypeError, ProbeUnavailableError
from kerasmemwatch.probes.base import UNKNOWN, Probe, begin_nothing
from kerasmemwatch.records.rows import ALWAYS
from kerasmemwatch.records.samples import Column

__all__ = ["BASE_COLUMNS", "ProbeSet"]

# The recorder appends whether the step ended.
BASE_COLUMNS = ALWAYS[:5]

_Layout = tuple[tuple[Column, ...], tuple[Column, ...]]
_NOTHING: _Layout = ((), ())


def _size(columns: Sequence[Column]) -> int:
    return sum(column.size for column in columns)


class ProbeSet:
    """Opens probes and reads them together.

    Args:
        on_fault: Called with a key, the probe's error and a sentence for the user, once per failure; may raise.
    """

    def __init__(self, probes: Sequence[Probe], on_fault: Callable[[str, Exception, str], None]) -> None:
        self._probes = tuple(probes)
        self._on_fault = on_fault
        self._layouts: dict[int, _Layout] = {}
        self._dead: set[int] = set()
        self._unavailable: dict[str, ProbeUnavailableError] = {}
        # The calls of the per-batch path, and the indices of their probes.
        self._begins: tuple[Callable[[], None], ...] = ()
        self.ends: tuple[Callable[[], Sequence[float]], ...] = ()
        self._begin_indices: tuple[int, ...] = ()
        self._end_indices: tuple[int, ...] = ()

    def open(self) -> None:
        """Open every probe, or reopen it as a stage begins."""
        first = not self._layouts
        self._dead.clear()
        for index, probe in enumerate(self._probes):
            if not first and self._layouts[index] == _NOTHING:
                continue  # a source that was missing at first does not appear later, and asking again may be slow
            try:
                probe.open()
                layout = (tuple(probe.columns), tuple(probe.slow_columns))
                if self._layouts.setdefault(index, layout) != layout:
                    raise ProbeUnavailableError(
                        f"The columns of {probe.name} changed within a run.", "Use a new MemoryWatch for it."
                    )
            except ProbeUnavailableError as error:
                # Not the error itself: its traceback would keep alive the caller's frames, with model and data.
                self._unavailable[probe.name] = ProbeUnavailableError(error.reason, error.remedy)
                self._layouts.setdefault(index, _NOTHING)
                self._dead.add(index)
            except Exception as error:
                self._layouts.setdefault(index, _NOTHING)
                self._failed(index, error)
        self._arm()

    @property
    def layout(self) -> tuple[Column, ...]:
        """Columns of a row: the base columns, those read each batch, those read at epoch ends."""
        layouts = [self._layouts[index] for index in sorted(self._layouts)]
        fast = [column for batch, _ in layouts for column in batch]
        return (*BASE_COLUMNS, *fast, *(column for _, slow in layouts for column in slow))

    @property
    def slow_size(self) -> int:
        """Number of values at the end of a row that are read only at epoch ends."""
        return sum(_size(slow) for _, slow in self._layouts.values())

    @property
    def facts(self) -> dict[str, dict[str, object]]:
        """Facts of each probe about its source, by the probe's name."""
        return {probe.name: dict(probe.facts) for probe in self._probes}

    def listed(self, probe: str, name: str) -> tuple[Any, ...]:
        """Items of one of a probe's facts; empty if it has no such fact."""
        found: Any = self.facts.get(probe, {}).get(name, ())
        return tuple(found)

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Notes on what cannot be measured and why, those with a remedy first, then the probes' own notes."""
        remarks = [str(probe.facts["note"]) for probe in self._probes if probe.facts.get("note")]
        gaps = sorted(self._unavailable.items(), key=lambda item: not item[1].remedy)
        return (*(f"Not measured ({name}): {error}" for name, error in gaps), *remarks)

    def begin(self) -> None:
        """Begin a sampled batch."""
        done = 0
        try:
            for begin in self._begins:
                begin()
                done += 1
        except Exception as error:
            # Probes that have begun must not begin again: that would end their window.
            rest = self._begin_indices[done + 1 :]
            self._failed(self._begin_indices[done], error)
            for index in rest:
                self._attempt(index, self._probes[index].batch_begin)
            self._arm()

    def end(self, parts: Sequence[Sequence[float]] = (), failure: Exception | None = None) -> list[float]:
        """Read the fast values as a sampled batch ends; checked to be numbers, of the expected count.

        Args:
            parts: Results of the first of ``ends``, if they were called already.
            failure: Error that the next of ``ends`` raised.
        """
        values: list[float] = []
        for position, index in enumerate(self._end_indices):
            part: Sequence[float] | None = None
            if position < len(parts):
                part = parts[position]
            elif position == len(parts) and failure is not None:
                self._failed(index, failure)
            else:
                part = self._attempt(index, self.ends[position])
            values += self._checked(index, part, slow=False)
        self._arm()
        return values

    def slow(self) -> list[float]:
        """Read the slow values as an epoch ends."""
        read_all = self._one_by_one(lambda probe: probe.epoch_end(), slow=True)
        return [value for index, part in read_all for value in self._checked(index, part, slow=True)]

    def close(self) -> None:
        """Close every probe."""
        self._one_by_one(lambda probe: probe.close(), everyone=True)

    def abandon(self) -> None:
        """Close every probe as far as is safe in the garbage collector."""
        self._one_by_one(lambda probe: getattr(probe, "abandon", probe.close)(), everyone=True)

    def _arm(self) -> None:
        """Bind the calls of the per-batch path; the columns of a dead probe read as unknown."""
        live = [index for index in range(len(self._probes)) if self._layouts.get(index, _NOTHING)[0]]
        self._end_indices = tuple(live)
        self._begin_indices = tuple(
            i for i in live if i not in self._dead and self._probes[i].batch_begin is not begin_nothing
        )
        self._begins = tuple(self._probes[i].batch_begin for i in self._begin_indices)
        self.ends = tuple(
            (lambda blank: lambda: blank)(self._blank(i)) if i in self._dead else self._probes[i].batch_end
            for i in live
        )

    def _attempt(self, index: int, call: Callable[[], Sequence[float] | None]) -> Sequence[float] | None:
        try:
            return call()
        except Exception as error:
            self._failed(index, error)
            return None

    def _one_by_one(
        self, call: Callable[[Probe], Sequence[float] | None], *, slow: bool = False, everyone: bool = False
    ) -> list[tuple[int, Sequence[float] | None]]:
        results: list[tuple[int, Sequence[float] | None]] = []
        for index, probe in enumerate(self._probes):
            if not everyone and not self._layouts.get(index, _NOTHING)[slow]:
                continue
            result = None
            if everyone or index not in self._dead:
                result = self._attempt(index, partial(call, probe))
            results.append((index, result))
        self._arm()
        return results

    def _checked(self, index: int, values: Sequence[float] | None, *, slow: bool) -> Sequence[float]:
        blank = self._blank(index, slow=slow)
        if index in self._dead:
            return blank
        try:
            numbers = [float(value) for value in values or ()]
        except (TypeError, ValueError, OverflowError):
            numbers = []
        if len(numbers) != len(blank):
            expected = InvalidTypeError(f"Expected {len(blank)} numbers. Received: {values!r}.")
            self._failed(index, expected)
            return blank
        return numbers

    def _blank(self, index: int, *, slow: bool = False) -> list[float]:
        return [UNKNOWN] * _size(self._layouts[index][slow])

    def _failed(self, index: int, error: Exception) -> None:
        self._dead.add(index)
        name = self._probes[index].name
        self._on_fault(
            f"probe {name}", error, f"The probe {name!r} failed; its columns are unknown until the next fit."
        )
