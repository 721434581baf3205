"""The live set of a moment, against sums that a loop makes over single allocations."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from timelines import MADE, STEP, alive, step, timeline

from kerasmemwatch.analysis.steps.live_set import (
    born_at,
    by_category,
    by_layer,
    category_series,
    coverage,
    peak_event,
    requested_at,
    traced_peak,
)
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.timeline import Timeline

RANDOM = pytest.mark.parametrize("made", MADE)


def test_a_step_by_hand() -> None:
    assert requested_at(STEP).tolist() == [107, 147, 140, 150, 170, 130]
    assert peak_event(STEP) == 3
    assert by_category(STEP, 3) == {
        "weights": 100,
        "optimizer": 0,
        "gradients": 30,
        "activations": 40,
        "temporaries": 0,
        "inputs": 0,
        "other": 0,
        "unattributed": 0,
    }
    assert by_layer(STEP, 2) == (
        LayerMemory("dense", "Dense", 100, 0, 0, 40, 0, 0, None, 0, 0, 140),
        LayerMemory("loss", "", 0, 0, 0, 0, 0, 0, None, 10, 0, 10),
    )
    assert coverage(STEP, -1) == 100 / 107 and coverage(STEP, 3) == 1.0
    assert [born_at(STEP, event) for event in range(-1, 5)] == [None, 2, None, 3, 4, None]


def test_a_peak_of_a_trial_is_in_no_pass() -> None:
    lines = [(10, 0, 3, "dense", "temporaries", "update", ""), (90, 1, 2, "autotuning", "temporaries", "between", "")]
    made = timeline(lines, 3, classes=("Dense", ""))
    peak = traced_peak(step(made))
    assert (peak.owner, peak.phase, peak.allocated_bytes) == ("autotuning", "between", 90)
    # A layer may be called that.
    assert traced_peak(step(replace(made, classes=("Dense", "Dense")))).phase == "update"


@RANDOM
def test_every_moment_is_the_sum_of_what_is_alive(made: Timeline) -> None:
    expected = [sum(made.requested_bytes[alive(made, event)]) for event in range(-1, made.num_events)]
    assert requested_at(made).tolist() == expected
    assert peak_event(made) == expected.index(max(expected)) - 1


@RANDOM
def test_the_categories_of_every_moment_sum_to_the_total(made: Timeline) -> None:
    series = category_series(made)
    assert series.shape == (len(CATEGORIES), made.num_events + 1)
    assert series.sum(axis=0).tolist() == requested_at(made).tolist()
    for event in range(-1, made.num_events):
        expected: Counter[str] = Counter()
        for i in alive(made, event):
            expected[CATEGORIES[made.category[i]]] += int(made.requested_bytes[i])
        found = by_category(made, event)
        assert tuple(found) == CATEGORIES and all(type(size) is int for size in found.values())
        assert +Counter(found) == +expected
        assert series[:, event + 1].tolist() == list(found.values())


@RANDOM
def test_every_live_byte_is_in_one_column_of_one_row(made: Timeline) -> None:
    for event in range(-1, made.num_events):
        expected: Counter[tuple[str, str]] = Counter()
        for i in alive(made, event):
            expected[made.owners[made.owner[i]], CATEGORIES[made.category[i]]] += int(made.requested_bytes[i])
        rows = by_layer(made, event)
        found = Counter({(row.path, name): getattr(row, f"{name}_bytes") for row in rows for name in CATEGORIES})
        assert +found == +expected
        totals = [row.total_bytes or 0 for row in rows]
        assert totals == sorted(totals, reverse=True) and 0 not in totals
        assert totals == [sum(found[row.path, name] for name in CATEGORIES) for row in rows]


@RANDOM
def test_coverage_leaves_out_what_has_no_owner_or_no_category(made: Timeline) -> None:
    for event in range(-1, made.num_events):
        live = alive(made, event)
        known = [i for i in live if "unattributed" not in (made.owners[made.owner[i]], CATEGORIES[made.category[i]])]
        total = made.requested_bytes[live].sum()
        expected = made.requested_bytes[known].sum() / total if total else None
        assert coverage(made, event) == (expected if expected is None else pytest.approx(expected))


def test_a_layer_called_unattributed_is_covered() -> None:
    made = timeline([(8, -1, 1, "unattributed", "weights", "between", "")], 1, classes=("Dense",))
    assert coverage(made, 0) == 1.0


def test_of_several_born_at_once_the_largest_is_named() -> None:
    lines = [(size, 0, 1, "a", "activations", "forward", f"op{size}") for size in (1, 9, 5)]
    assert born_at(timeline(lines, 1), 0) == 1
