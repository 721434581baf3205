"""A probe that fails costs its own columns, and nobody else's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from fakes import FakeProbe

from kerasmemwatch.errors import ProbeUnavailableError
from kerasmemwatch.probes.base import begin_nothing
from kerasmemwatch.records.samples import Column
from kerasmemwatch.sampling.probe_set import BASE_COLUMNS, ProbeSet


class Faulty:
    """Three probes, of which the second may be told to fail."""

    def __init__(self, *, slow: bool = True) -> None:
        self.first = FakeProbe("first", ["a", Column("b", 2)], ["slow_a"] if slow else [])
        self.second = FakeProbe("second", ["c", "d"], ["slow_b"] if slow else [])
        self.third = FakeProbe("third", ["e"], ["slow_c"] if slow else [])
        self.faults: list[tuple[str, str, str]] = []
        self.set = ProbeSet(
            (self.first, self.second, self.third),
            lambda where, error, then: self.faults.append((where, str(error), then)),
        )

    def batch(self) -> list[float | None]:
        self.set.begin()
        return known(self.set.end())


def known(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]


def names(columns: Sequence[Column]) -> list[str]:
    return [column.name for column in columns]


def test_layout_is_base_then_fast_then_slow() -> None:
    probes = Faulty()
    probes.set.open()
    assert names(probes.set.layout) == [*names(BASE_COLUMNS), "a", "b", "c", "d", "e", "slow_a", "slow_b", "slow_c"]
    assert probes.set.slow_size == 3


def test_reads_every_probe_in_order() -> None:
    probes = Faulty()
    probes.set.open()
    assert probes.batch() == [1, 1, 1, 1, 1, 1]
    assert probes.batch() == [2, 2, 2, 2, 2, 2]
    assert probes.set.slow() == [-1, -1, -1]
    assert probes.faults == []


def test_probes_without_fast_columns_cost_nothing_per_batch() -> None:
    rare = FakeProbe("rare", [], ["slow"])
    probes = ProbeSet((rare, FakeProbe()), lambda *_: None)
    probes.open()
    probes.begin()
    assert probes.end() == [1]
    assert rare.calls == ["open"]
    assert probes.slow() == [-1]


def test_a_probe_that_has_nothing_to_begin_is_not_asked() -> None:
    probes = Faulty()
    probes.first.batch_begin = begin_nothing  # type: ignore[method-assign]
    probes.set.open()
    assert probes.set._begins == (probes.second.batch_begin, probes.third.batch_begin)
    probes.second.raises["batch_begin"] = RuntimeError("broken")
    assert probes.batch() == [1, 1, 1, None, None, 1]
    assert probes.third.calls == ["open", "batch_begin", "batch_end"]


@pytest.mark.parametrize("hook", ["batch_begin", "batch_end"])
def test_a_failing_probe_is_unknown_and_the_others_go_on_without_a_gap(hook: str) -> None:
    probes = Faulty()
    probes.set.open()
    assert probes.batch() == [1] * 6
    probes.second.raises[hook] = RuntimeError("broken")
    assert probes.batch() == [2, 2, 2, None, None, 2]
    assert probes.batch() == [3, 3, 3, None, None, 3]
    assert known(probes.set.slow()) == [-1, None, -1]
    assert probes.faults == [
        ("probe second", "broken", "The probe 'second' failed; its columns are unknown until the next fit.")
    ]


@pytest.mark.parametrize("hook", ["batch_begin", "batch_end"])
def test_no_window_of_another_probe_ends_early_because_one_fails(hook: str) -> None:
    # A reading ends a window: asked twice for one batch, the allocator's peak of that batch would be gone.
    probes = Faulty()
    probes.set.open()
    probes.second.raises[hook] = RuntimeError("broken")
    probes.batch()
    for other in (probes.first, probes.third):
        assert other.calls == ["open", "batch_begin", "batch_end"]


def test_a_failing_probe_is_left_alone_until_the_next_stage() -> None:
    probes = Faulty()
    probes.set.open()
    probes.second.raises["batch_end"] = RuntimeError("broken")
    probes.batch()
    calls = list(probes.second.calls)
    probes.batch()
    probes.set.slow()
    assert probes.second.calls == calls
    del probes.second.raises["batch_end"]
    probes.set.open()
    assert None not in probes.batch()
    assert None not in known(probes.set.slow())


def test_a_probe_that_fails_at_an_epoch_end_loses_its_fast_columns_too() -> None:
    probes = Faulty()
    probes.set.open()
    probes.second.raises["epoch_end"] = OSError("gone")
    assert known(probes.set.slow()) == [-1, None, -1]
    assert probes.batch() == [1, 1, 1, None, None, 1]
    assert len(probes.faults) == 1


def test_a_probe_that_cannot_open_has_no_columns() -> None:
    probes = Faulty()
    probes.second.raises["open"] = RuntimeError("broken")
    probes.set.open()
    assert names(probes.set.layout)[len(BASE_COLUMNS) :] == ["a", "b", "e", "slow_a", "slow_c"]
    assert probes.batch() == [1, 1, 1, 1]
    assert [where for where, *_ in probes.faults] == ["probe second"]


def test_a_probe_that_opens_only_the_first_time_is_unknown_later() -> None:
    probes = Faulty()
    probes.set.open()
    probes.second.raises["open"] = RuntimeError("broken")
    probes.set.open()
    assert probes.batch() == [1, 1, 1, None, None, 1]
    assert known(probes.set.slow()) == [-1, None, -1]
    del probes.second.raises["open"]
    probes.set.open()
    assert probes.batch() == [2, 2, 2, 1, 1, 2]


def test_what_is_unavailable_is_no_fault_but_told() -> None:
    probes = Faulty()
    probes.first.raises["open"] = ProbeUnavailableError("No TPU.")
    probes.second.raises["open"] = ProbeUnavailableError("No driver.", "Install it.")
    probes.third.facts = {"note": "Counts pages."}
    probes.set.open()
    assert probes.faults == []
    assert probes.set.unmeasured == (
        "Not measured (second): No driver. Install it.",
        "Not measured (first): No TPU.",
        "Counts pages.",
    )
    assert probes.batch() == [1]


def test_a_probe_whose_columns_change_within_a_run_is_unknown() -> None:
    probes = Faulty()
    probes.set.open()
    layout = probes.set.layout
    probes.second.columns = (Column("c"), Column("d"), Column("new"))
    probes.set.open()
    assert probes.set.layout == layout
    assert probes.batch() == [1, 1, 1, None, None, 1]
    assert "changed within a run" in probes.set.unmeasured[0]


@pytest.mark.parametrize("wrong", [[], [7.0], [7.0, 8.0, 9.0], None, [7.0, None], ["x", "y"], 7.0])
def test_a_wrong_reading_is_a_fault_of_that_probe(wrong: Any) -> None:
    probes = Faulty()
    probes.set.open()
    probes.second._fast = lambda _: wrong
    probes.set.begin()
    assert known(probes.set.end()) == [1, 1, 1, None, None, 1]
    assert [where for where, *_ in probes.faults] == ["probe second"]
    assert probes.batch() == [2, 2, 2, None, None, 2]
    assert len(probes.faults) == 1


@pytest.mark.parametrize("wrong", [[], [7.0, 8.0], None, ["x"], 7.0])
def test_a_wrong_slow_reading_is_a_fault_of_that_probe(wrong: Any) -> None:
    probes = Faulty()
    probes.set.open()
    probes.second._slow = lambda _: wrong
    assert known(probes.set.slow()) == [-1, None, -1]
    assert [where for where, *_ in probes.faults] == ["probe second"]


def test_all_are_closed_even_if_one_cannot() -> None:
    probes = Faulty()
    probes.set.open()
    probes.first.raises["close"] = RuntimeError("stuck")
    probes.second.raises["batch_end"] = RuntimeError("broken")
    probes.batch()
    probes.set.close()
    assert [probe.calls.count("close") for probe in (probes.first, probes.second, probes.third)] == [1, 1, 1]
    assert [where for where, *_ in probes.faults] == ["probe second", "probe first"]


def test_an_interrupt_passes() -> None:
    def interrupt(_: int) -> list[float]:
        raise KeyboardInterrupt

    probes = ProbeSet((FakeProbe(fast=interrupt),), lambda *_: None)
    probes.open()
    with pytest.raises(KeyboardInterrupt):
        probes.end()


def test_a_fault_that_is_raised_reaches_the_caller() -> None:
    def strict(where: str, error: Exception, then: str) -> None:
        raise error

    probe = FakeProbe()
    probes = ProbeSet((probe,), strict)
    probes.open()
    probe.raises["batch_end"] = RuntimeError("broken")
    with pytest.raises(RuntimeError, match="broken"):
        probes.end()


def test_facts_are_by_name_and_copied() -> None:
    probe = FakeProbe(facts={"limit_bytes": 5})
    probes = ProbeSet((probe,), lambda *_: None)
    facts = probes.facts
    probe.facts["limit_bytes"] = 6
    assert facts == {"host": {"limit_bytes": 5}}


def test_no_probes_at_all() -> None:
    probes = ProbeSet((), lambda *_: None)
    probes.open()
    probes.begin()
    assert (probes.end(), probes.slow(), probes.layout) == ([], [], BASE_COLUMNS)
