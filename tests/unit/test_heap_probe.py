"""The probe of the C library's heap: what malloc handed out, and how often it is asked."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import pytest

from kerasmemwatch.probes import heap
from kerasmemwatch.probes.heap import HeapProbe, heap_bytes_reader
from kerasmemwatch.units import MIB

SIZE = 64 * MIB


def test_it_counts_what_is_handed_out_whatever_pages_hold_it() -> None:
    read = heap_bytes_reader()
    assert read is not None
    before = read()
    small = [bytearray(100_000) for _ in range(100)]
    large = np.empty(SIZE, np.uint8)  # no page of it is touched, so that RSS hardly moves
    assert SIZE + 10_000_000 <= read() - before < SIZE + 12_000_000
    del small, large
    assert abs(read() - before) < MIB


def test_it_reads_as_often_as_its_share_of_the_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    now, cpu = [100.0], [0.0]

    def read() -> float:
        cpu[0] += 0.012
        return 7.0

    monkeypatch.setattr(heap, "READINGS", heap._Readings())
    monkeypatch.setattr(heap.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(heap.time, "thread_time", lambda: cpu[0])
    monkeypatch.setattr(heap, "heap_bytes_reader", lambda: read)
    probe = HeapProbe()
    assert math.isnan(probe.batch_end()[0])
    probe.open()
    found = []
    for _ in range(40):
        found.append(probe.batch_end()[0])
        now[0] += 0.625
    # Each takes 12 ms: the first two make the next one due in 1.2 s, all others in 12 s.
    assert [index for index, value in enumerate(found) if value == 7.0] == [0, 2, 4, 24]
    assert all(math.isnan(value) for value in found if value != 7.0)
    assert probe.epoch_end() == ()
    another = HeapProbe()  # of a fit that follows at once
    another.open()
    assert math.isnan(another.batch_end()[0])
    probe.close()
    assert math.isnan(probe.batch_end()[0])


@pytest.mark.parametrize("error", [AttributeError, OSError])
def test_what_the_c_library_does_not_tell_is_unknown(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    probe = HeapProbe()
    probe.open()
    assert heap_bytes_reader() is None and math.isnan(probe.batch_end()[0])
