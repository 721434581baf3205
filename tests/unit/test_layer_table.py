"""Each layer over a whole step, against a loop over all moments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from timelines import MADE, STEP, alive, random_timeline, step, timeline

from kerasmemwatch.analysis.steps.layer_table import added_bytes, layer_table, range_maxima
from kerasmemwatch.analysis.steps.live_set import by_layer, peak_event, requested_at
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.timeline import PHASES, Timeline

RANDOM = pytest.mark.parametrize("made", MADE)


def live_bytes(made: Timeline, event: int, owner: int, category: str | None = None) -> int:
    return sum(
        int(made.requested_bytes[i])
        for i in alive(made, event)
        if made.owner[i] == owner and category in (None, CATEGORIES[made.category[i]])
    )


def moments(made: Timeline) -> range:
    return range(-1, made.num_events)


def rows_of(made: Timeline, inventory: Sequence[LayerMemory] = ()) -> dict[str, LayerMemory]:
    return {row.path: row for row in layer_table(step(made), tuple(inventory))}


def test_a_step_by_hand() -> None:
    dense, unattributed, loss = layer_table(step(STEP, output_bytes={"dense": 40}))
    assert dense == LayerMemory(
        "dense",
        "Dense",
        weights_bytes=100,
        optimizer_bytes=0,
        gradients_bytes=30,
        activations_bytes=40,
        temporaries_bytes=0,
        inputs_bytes=0,
        output_bytes=40,
        other_bytes=0,
        unattributed_bytes=0,
        total_bytes=170,
        added_bytes=160,  # of 170, the loss's 10 would be left
        forward_peak_bytes=147,
        backward_peak_bytes=170,
    )
    assert (loss.path, loss.other_bytes, loss.added_bytes, loss.forward_peak_bytes) == ("loss", 10, 0, 150)
    assert loss.output_bytes is None and loss.backward_peak_bytes is None
    assert (unattributed.unattributed_bytes, unattributed.forward_peak_bytes) == (7, None)


@RANDOM
def test_each_category_has_its_own_maximum(made: Timeline) -> None:
    rows = rows_of(made)
    assert set(rows) == set(made.owners)
    for index, path in enumerate(made.owners):
        for name in CATEGORIES:
            series = [live_bytes(made, event, index, name) for event in moments(made)]
            expected = max(series)
            if name in ("weights", "optimizer") and (series[0] or series[-1]):
                # At rest, before or after the step, or at the peak.
                expected = max(series[0], series[-1], series[peak_event(made) + 1])
            assert getattr(rows[path], f"{name}_bytes") == expected
        assert rows[path].total_bytes == max(live_bytes(made, event, index) for event in moments(made))


@RANDOM
def test_no_column_is_below_the_peaks(made: Timeline) -> None:
    rows = {(row.path, bool(row.class_name)): row for row in layer_table(step(made))}
    for live in by_layer(made, peak_event(made)):
        for name in CATEGORIES:
            column = getattr(rows[live.path, bool(live.class_name)], f"{name}_bytes")
            assert column >= getattr(live, f"{name}_bytes"), (live.path, name)


def test_a_variable_that_moves_to_a_new_buffer_counts_once_elsewhere_than_at_the_peak() -> None:
    made = timeline(
        [
            (100, -1, 2, "dense", "weights", "between", ""),
            (300, 0, 1, "dense", "temporaries", "forward", ""),
            (100, 1, 3, "dense", "weights", "update", "AssignSubVariableOp"),
        ],
        3,
    )
    row = rows_of(made)["dense"]
    assert (row.weights_bytes, row.temporaries_bytes, row.total_bytes) == (100, 300, 400)


def test_gradients_are_at_least_what_was_alive_of_them() -> None:
    """Clipped gradients lie beside the others for a moment; those of several variables need never be alive together."""
    made = timeline(
        [(30, 0, 2, "dense", "gradients", "backward", ""), (30, 1, 2, "dense", "gradients", "update", "")], 2
    )
    for of_variables, expected in ((30, 60), (90, 90)):
        [row] = layer_table(step(made, gradient_bytes={"dense": of_variables}))
        assert row.gradients_bytes == expected


def test_an_old_and_a_new_buffer_of_a_variable_are_both_counted_at_the_peak() -> None:
    made = timeline(
        [
            (100, -1, 1, "dense", "weights", "between", ""),
            (100, 0, 2, "dense", "weights", "update", "AssignSubVariableOp"),
        ],
        2,
    )
    row = rows_of(made)["dense"]
    assert (row.weights_bytes, row.total_bytes, row.added_bytes) == (200, 200, 200)


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_outside_of_training_there_are_no_gradients(stage: str) -> None:
    listed = [LayerMemory("idle", "Dense", 8, optimizer_bytes=0, other_bytes=0)]
    made = timeline([(50, 0, 1, "dense", "temporaries", "forward", "")], 1)
    assert [row.gradients_bytes for row in layer_table(step(made, stage=stage), listed)] == [None, None]
    assert [row.gradients_bytes for row in layer_table(step(made), listed)] == [0, 0]


@RANDOM
def test_what_an_owner_adds_is_what_the_peak_falls_by_without_it(made: Timeline) -> None:
    total = requested_at(made)
    expected = [
        int(total.max()) - max(int(total[event + 1]) - live_bytes(made, event, index) for event in moments(made))
        for index in range(len(made.owners))
    ]
    assert added_bytes(made).tolist() == expected
    assert [rows_of(made)[path].added_bytes for path in made.owners] == expected


@pytest.mark.parametrize("seed", range(30))
def test_what_owners_add_in_many_random_steps(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    made = random_timeline(rng, int(rng.integers(1, 300)), int(rng.integers(1, 12)), int(rng.integers(1, 200)))
    total = requested_at(made)
    own = np.zeros((len(made.owners), made.num_events + 1), np.int64)
    for size, birth, death, owner in zip(made.requested_bytes, made.birth, made.death, made.owner, strict=True):
        own[owner, birth + 1 : death + 1] += size
    assert added_bytes(made).tolist() == (total.max() - (total - own).max(axis=1)).tolist()


@RANDOM
def test_the_peaks_while_a_layer_runs(made: Timeline) -> None:
    rows, total = rows_of(made), requested_at(made).tolist()
    for index, path in enumerate(made.owners):
        for phase in ("forward", "backward"):
            births = [
                int(birth)
                for birth, owner, code in zip(made.birth, made.owner, made.phase, strict=True)
                if owner == index and PHASES[code] == phase
            ]
            expected = max(total[min(births) + 1 : max(births) + 2]) if births else None
            assert getattr(rows[path], f"{phase}_peak_bytes") == expected


def test_range_maxima_of_every_range() -> None:
    values = np.random.default_rng(0).integers(-50, 50, 37)
    ranges = [(begin, end) for begin in range(37) for end in range(begin + 1, 38)]
    begin, end = np.array(ranges).T
    assert range_maxima(values, begin, end).tolist() == [max(values[b:e]) for b, e in ranges]
    assert range_maxima(values, begin[:0], end[:0]).tolist() == []


# -- with the model's inventory ----------------------------------------------------------------------------------


def paths(made: Timeline, inventory: Sequence[str]) -> list[str]:
    listed = [LayerMemory(path, "" if path in ("optimizer", "metrics") else "Dense", 0, 0, 0) for path in inventory]
    return [row.path for row in layer_table(step(made), tuple(listed))]


def test_rows_are_in_the_models_order_and_named_owners_last() -> None:
    made = timeline([], 0, owners=["loss", "conv", "relu", "optimizer", "pool", "head"])
    assert paths(made, []) == ["conv", "relu", "pool", "head", "loss", "optimizer"]
    # Layers without variables come after their predecessors.
    assert paths(made, ["first", "conv", "norm", "head", "metrics"]) == [
        "first",
        "conv",
        "relu",
        "pool",
        "norm",
        "head",
        "loss",
        "optimizer",
        "metrics",
    ]
    # The inventory's order counts, in whatever order the step met the layers.
    assert paths(made, ["head", "conv"]) == ["head", "conv", "relu", "pool", "loss", "optimizer"]


def test_a_layer_called_metrics_is_not_the_metrics() -> None:
    made = timeline([(4, 0, 1, "metrics", "other", "forward", "Mean")], 1)
    layer, owner = layer_table(step(made), (LayerMemory("metrics", "Dense", 8, optimizer_bytes=0, other_bytes=0),))
    assert (layer.class_name, layer.weights_bytes, layer.other_bytes) == ("Dense", 8, 0)
    assert (owner.class_name, owner.weights_bytes, owner.other_bytes) == ("", 0, 4)


def test_the_steps_own_figures_come_before_the_inventorys() -> None:
    made = timeline(
        [(100, -1, 1, "dense", "weights", "between", ""), (50, 0, 1, "dense", "activations", "forward", "")], 1
    )
    listed = LayerMemory("dense", "Dense", 96, 0, 0, other_bytes=0, num_variables=2)
    row = rows_of(made, [listed])["dense"]
    assert (row.weights_bytes, row.num_variables, row.total_bytes) == (100, 2, 150)


def test_what_the_step_lacks_is_the_inventorys_and_makes_totals_unknown() -> None:
    made = timeline([(50, 0, 1, "dense", "activations", "forward", "")], 1)
    listed = [
        LayerMemory("dense", "Dense", 96, optimizer_bytes=192, other_bytes=0),
        LayerMemory("idle", "Dense", 8, optimizer_bytes=0, other_bytes=0),
        LayerMemory("dropout", "Dropout", 0, optimizer_bytes=0, other_bytes=8),
        LayerMemory("strange", "Dense", None, optimizer_bytes=0, other_bytes=0),
    ]
    rows = rows_of(made, listed)
    assert (rows["dense"].weights_bytes, rows["dense"].optimizer_bytes) == (96, 192)
    assert rows["dense"].total_bytes is None and rows["dense"].added_bytes is None
    assert (rows["idle"].weights_bytes, rows["idle"].activations_bytes, rows["idle"].total_bytes) == (8, 0, None)
    assert (rows["dropout"].other_bytes, rows["dropout"].total_bytes) == (8, 0)
    assert rows["strange"].weights_bytes is None and rows["strange"].total_bytes is None
