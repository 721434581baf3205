"""A traced step scaled to another batch, and the moment of death found in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from timelines import step, timeline

from kerasmemwatch.analysis.death_words import death_note
from kerasmemwatch.out_of_memory.failing_layer import Asker
from kerasmemwatch.out_of_memory.last_moment import Known, last_moment
from kerasmemwatch.out_of_memory.scaled_step import data_set_bytes, scaled
from kerasmemwatch.records.death import Death, Request
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.owners import Frame

ROWS = 4
MADE = timeline(
    [
        (1024, -1, 8, "dense", "weights", "between", ""),
        (2048, -1, 8, "dense", "optimizer", "between", ""),
        (9600, -1, 8, "input pipeline", "inputs", "between", ""),  # the data set
        (160, -1, 8, "input pipeline", "inputs", "between", ""),  # a batch that waits
        (160, 0, 7, "input pipeline", "inputs", "input", "IteratorGetNext"),
        (640, 1, 6, "dense", "activations", "forward", "call/model/dense/MatMul"),
        (320, 2, 3, "head", "temporaries", "forward", "call/model/head/MatMul"),
        (1024, 4, 7, "dense", "gradients", "backward", "call/gradient_tape/model/dense/MatMul"),
        (1024, 5, 6, "dense", "temporaries", "backward", "call/gradient_tape/model/dense/Transpose"),
        (4, 6, 7, "loss", "other", "forward", "Mean"),
    ],
    8,
)
STEP = step(MADE, batch_rows=ROWS, batch_bytes=160)


def test_what_a_pass_makes_grows_and_the_rest_does_not() -> None:
    sizes = scaled(STEP, 4 * ROWS).timeline.requested_bytes.tolist()
    # A temporary as large as a weight of its layer is a weight's.
    assert sizes == [1024, 2048, 9600, 640, 640, 2560, 1280, 1024, 1024, 4]


def test_a_convolutions_workspace_on_a_cpu_stays_as_it_is() -> None:
    op = "call/gradient_tape/model/conv/Conv2DBackpropInput"
    made = timeline(
        [
            (640, 0, 3, "conv", "gradients", "backward", op),  # its result comes first
            (9600, 1, 2, "conv", "temporaries", "backward", op),
            (9600, 2, 3, "conv", "temporaries", "backward", "call/gradient_tape/model/conv/Relu"),
        ],
        4,
    )
    assert scaled(step(made, batch_rows=ROWS), 4 * ROWS).timeline.requested_bytes.tolist() == [2560, 9600, 38400]
    # On a GPU an algorithm's workspace may well grow.
    on_gpu = step(replace(made, device="GPU:0"), batch_rows=ROWS)
    assert scaled(on_gpu, 4 * ROWS).timeline.requested_bytes.tolist() == [2560, 38400, 38400]


@pytest.mark.parametrize(("rows", "batch"), [(None, 16), (4, None), (None, None)])
def test_an_unknown_batch_scales_nothing(rows: int | None, batch: int | None) -> None:
    found = scaled(step(MADE, batch_rows=rows), batch)
    np.testing.assert_array_equal(found.timeline.requested_bytes, MADE.requested_bytes)
    assert found.words == "as in traced step 3, whose batch may be another"


def test_the_words_tell_the_batches() -> None:
    assert scaled(STEP, 16).words == "traced step 3, scaled from batch 4 to 16"
    assert scaled(STEP, ROWS).words == "as in traced step 3"


def died(**changed: object) -> Death:
    request = Request("op", 1280, shape=(16, 20), dtype="float", op="model/head/MatMul", device="CPU:0")
    return Death(7, "train", request=request, limit_bytes=2**20, **changed)  # type: ignore[arg-type]


def test_what_was_alive_is_told_of_the_moment_of_the_request() -> None:
    known = Known(Asker(Frame("head", "Dense", "forward"), "a test"), [STEP], [LayerMemory("dense", "Dense")])
    found = last_moment(died(), known)
    # The batch is known from what the same operation asked for: 320 bytes for 4 rows.
    assert found.batch == 16
    assert found.by_category == {"weights": 1024, "optimizer": 2048, "inputs": 9600 + 2 * 640, "activations": 2560}
    assert [(row.path, row.total_bytes) for row in found.layers] == [("dense", 1024 + 2048 + 2560)]
    assert (found.layer, found.class_name, found.phase, found.mode) == ("head", "Dense", "forward", "graph")
    assert found.figures_from == "traced step 3, scaled from batch 4 to 16"


def test_without_a_traced_step_only_variables_are_known() -> None:
    rows = [LayerMemory("a", "Dense", weights_bytes=8, optimizer_bytes=4), LayerMemory("b", "Dense", weights_bytes=80)]
    found = last_moment(died(batch=16), Known(inventory=rows))
    assert found.by_category == {"weights": 88, "optimizer": 4}
    assert [row.path for row in found.layers] == ["b", "a"]
    assert found.figures_from == "variables only; no step was traced yet"
    assert found.peak_bytes is None and found.layer == ""
    found = last_moment(died(batch=16), Known(inventory=rows, input_row_bytes=12))
    assert found.by_category == {"weights": 88, "optimizer": 4, "inputs": 192}
    assert found.figures_from == "variables and inputs only; no step was traced yet"


def test_a_step_of_another_stage_tells_nothing() -> None:
    assert last_moment(died(), Known(steps=[step(MADE, stage="test", batch_rows=4)])).peak_bytes is None


@pytest.mark.parametrize(
    ("shape", "batch"), [((None, 20), 16), ((None, 21), None), ((8, 20), None), ((16, 20), 16), ((None,), None)]
)
def test_the_first_step_s_batch_is_known_by_the_shape_of_a_layer_s_output(
    shape: tuple[int | None, ...], batch: int | None
) -> None:
    assert last_moment(died(), Known(outputs=[shape])).batch == batch


def test_an_eager_operation_is_told_apart_by_its_layer_and_its_size() -> None:
    made = timeline(
        [
            (64, 0, 4, "dense", "activations", "forward", "MatMul"),
            (320, 1, 4, "head", "activations", "forward", "MatMul"),
            (640, 2, 4, "head", "temporaries", "backward", "MatMul"),
        ],
        4,
    )
    request = Request("op", 1280, shape=(16, 20), dtype="float", op="MatMul", device="CPU:0")
    known = Known(Asker(Frame("head", "Dense", "forward"), "a test"), [step(made, batch_rows=4, mode="eager")])
    found = last_moment(Death(7, "train", request=request), known)
    # 8 rows would fit the later operation, too; the shape tells.
    assert found.batch == 16
    assert found.by_category == {"activations": 256}


def test_a_data_set_on_the_device_is_larger_than_a_batch() -> None:
    assert data_set_bytes(scaled(STEP, 8)) == 9600


def test_without_a_traced_step_the_layers_outputs_give_a_rough_guess() -> None:
    rows = [LayerMemory("a", "Dense", weights_bytes=1000)]
    died_ = replace(died(batch=16), limit_bytes=20_000)
    first = last_moment(died_, Known(inventory=rows, row_bytes=300)).suggestions[0]
    # 2 * 1000 bytes of weights and gradients, 5 * 300 a row, and the margin.
    assert first.code == "batch_size=8" and first.fits is None and "rough guess" in first.words
    first = last_moment(replace(died_, stage="predict"), Known(inventory=rows, row_bytes=3000)).suggestions[0]
    assert first.code == "batch_size=4"


def test_a_batch_is_guessed_from_the_bytes_in_use_where_the_request_does_not_tell() -> None:
    no_slack = replace(MADE, in_use_before_bytes=0, in_use_bytes=0 * MADE.in_use_bytes)
    traced = step(no_slack, batch_rows=ROWS, batch_bytes=160)
    request = Request("op", 1001, op="model/head/MatMul", device="CPU:0")
    # 12672 bytes of variables and the data set, and 240 a row: two batches, and one activation.
    died_ = Death(7, "train", request=request, limit_bytes=2**16, in_use_bytes=12672 + 16 * 240)
    found = last_moment(died_, Known(steps=[traced]))
    assert found.batch is None and found.figures_from == "traced step 3, scaled from batch 4 to about 16"
    assert found.suggestions[0].code == "batch_size=8"
    assert last_moment(replace(died_, in_use_bytes=100), Known(steps=[traced])).peak_bytes is None


def test_a_sparse_gradient_grows() -> None:
    made = timeline(
        [
            (1024, -1, 4, "table", "weights", "between", ""),
            (320, 0, 2, "table", "gradients", "backward", "Reshape"),
            (1024, 1, 3, "table", "gradients", "backward", "MatMul"),
        ],
        4,
    )
    assert scaled(step(made, batch_rows=4), 16).timeline.requested_bytes.tolist() == [1024, 1280, 1024]


@pytest.mark.parametrize(
    ("in_use", "batch", "fragmented"),
    [
        (900, 16, True),  # most was in use earlier in the step, and is free again
        (None, 16, True),  # nothing was measured
        (1900, 16, False),  # the traced step is not like this one
        (900, None, False),  # nor is it known for another batch
    ],
)
def test_fragmentation_is_told_by_the_traced_step_of_the_moment_of_the_request(
    in_use: int | None, batch: int | None, fragmented: bool
) -> None:
    made = timeline(
        [
            (200, 0, 1, "dense", "activations", "forward", "Mul"),
            (320, 2, 4, "head", "activations", "forward", "model/head/MatMul"),
        ],
        4,
    )
    made = replace(made, in_use_before_bytes=0, in_use_bytes=0 * made.in_use_bytes)
    known = Known(Asker(Frame("head", "Dense", "forward"), "a test"), [step(made, batch_rows=batch and 4)])
    found = last_moment(replace(died(in_use_bytes=in_use), limit_bytes=2000), known)
    # 1280 bytes were asked for: at most 1100 were free all through the step, but 2000 at that moment.
    assert found.is_fragmented is found.is_fragmented_then is fragmented
    note = death_note(found)
    assert ("2.0 KiB were free when it asked (estimate), but in no piece" in note) is fragmented
    assert ("were missing" in note) is (in_use is not None and not fragmented)


def test_the_traced_batch_is_known_by_the_same_operation_too() -> None:
    known = Known(Asker(Frame("head", "Dense", "forward"), "a test"), [step(MADE, batch_rows=None)])
    assert last_moment(died(batch=16), known).figures_from == "traced step 3, scaled from batch 4 to 16"
    assert last_moment(died(batch=15), known).figures_from == "as in traced step 3, whose batch may be another"
