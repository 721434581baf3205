"""The tensors of a batch and their sizes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from captures import COMPUTE, PIPELINE, PYTHON, events

from kerasmemwatch.attribution.live.batch_spec import (
    BatchPart,
    batch_parts,
    fixed_rows,
    output_bytes,
    rows_in_batch,
    tensor_specs,
)

FLOAT = SimpleNamespace(size=4)


def spec(*shape: int | None) -> SimpleNamespace:
    return SimpleNamespace(shape=shape, dtype=FLOAT)


def test_an_iterators_batch_is_known_by_the_row() -> None:
    iterator = SimpleNamespace(element_spec=(spec(None, 3), {"b": spec(None), "a": [spec(8, 2)]}))
    assert batch_parts((iterator,)) == [BatchPart(12, True), BatchPart(4, True), BatchPart(64, False)]


def test_tensors_are_known_as_they_are() -> None:
    batch = (np.ones((2, 3), "float32"), np.ones(5, "int64"))
    assert batch_parts((batch,)) == [BatchPart(24, False), BatchPart(40, False)]


@pytest.mark.parametrize("item", [None, "text", SimpleNamespace(shape=None, dtype=FLOAT), SimpleNamespace(shape=(2,))])
def test_what_has_no_size_is_left_out(item: object) -> None:
    assert batch_parts((item,)) == []
    assert tensor_specs([item]) == []


def test_no_bytes_are_no_part() -> None:
    assert batch_parts((spec(0, 3), spec(None, 0))) == []


def test_the_rows_are_what_fits_most_parts() -> None:
    parts = [BatchPart(400, True), BatchPart(4, True)]
    piped = [(256, 3200, "", PIPELINE), (512, 32, "", PIPELINE)]
    found = events([*piped, (768, 800, "op", COMPUTE), (1024, 8, "", PYTHON)])
    assert rows_in_batch(parts, found) == 8


def test_a_batch_that_died_in_the_step_counts_too() -> None:
    assert rows_in_batch([BatchPart(400, True)], events([(256, -1600)])) == 4


@pytest.mark.parametrize("parts", [[], [BatchPart(400, False)], [BatchPart(300, True)]])
def test_the_rows_may_be_unknown(parts: list[BatchPart]) -> None:
    assert rows_in_batch(parts, events([(256, 1600, "", PIPELINE)])) is None
    assert rows_in_batch(parts, events([])) is None


def test_outputs_of_a_layer_add_up() -> None:
    outputs = {
        "a": tensor_specs([spec(None, 10), spec(4, 2)]),
        "scalar": tensor_specs(spec()),
        "ragged": tensor_specs([spec(None, None)]),
        "none": [],
    }
    assert output_bytes(outputs, 8) == {"a": 8 * 10 * 4 + 4 * 2 * 4, "scalar": 4}
    assert output_bytes(outputs, None) == {"scalar": 4}


def test_outputs_decide_where_the_batch_is_unknown_or_fits_twice() -> None:
    nothing = events([])
    assert rows_in_batch([], nothing, {8: 2, 2048: 1}) == 8
    assert rows_in_batch([], nothing, {8: 1, 2048: 1}) is None
    # A weight that died fits both parts, too.
    parts = [BatchPart(2048, True), BatchPart(4, True)]
    died = events([(256, -16384), (512, -32), (768, -4194304), (1024, -8192)])
    assert rows_in_batch(parts, died, {8: 2}) == 8
    assert rows_in_batch(parts, died, {2048: 2}) == 2048
    # The batch itself is not seen: only a gradient that died fits it.
    gradients = events([(768, -4194304), (1024, -8192)])
    assert rows_in_batch(parts, gradients, {8: 2}) == 8
    assert rows_in_batch(parts, gradients, {8: 1}) == rows_in_batch(parts, gradients) == 2048


def test_a_batch_that_the_pipeline_makes_counts_before_what_died() -> None:
    parts = [BatchPart(2048, True), BatchPart(4, True)]
    made = events([(256, -16384), (512, 32, "", PIPELINE), (768, -4194304), (1024, -8192)])
    assert rows_in_batch(parts, made) == 8


def test_the_rows_that_all_tensors_share() -> None:
    assert fixed_rows((np.ones((6, 3)), np.ones(6))) == 6
    assert fixed_rows((SimpleNamespace(element_spec=(spec(6, 3), spec(6))),)) == 6
    assert fixed_rows((SimpleNamespace(element_spec=(spec(None, 3), spec(6))),)) is None
    assert fixed_rows((np.ones((6, 3)), np.ones(5))) is None
    assert fixed_rows(()) is None
