"""Programs that XLA compiled here and now: their plan against what the allocator was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from data.make_hlo_fixtures import BATCH_SIZE, capture, models, training_step

from kerasmemwatch.attribution.events.allocation_events import read_events
from kerasmemwatch.attribution.xla.hlo_proto import _MESSAGES
from kerasmemwatch.attribution.xla.program_memory import XlaModule, live_bytes
from kerasmemwatch.attribution.xla.program_runs import Programs, find_runs

pytestmark = pytest.mark.usefixtures("exact_counting")
layers = keras.layers


def mlp() -> Any:
    return keras.Sequential([keras.Input((16,)), layers.Dense(64, "relu"), layers.Dense(32, "tanh"), layers.Dense(10)])


def transformer() -> Any:
    inputs = x = keras.Input((12, 16))
    for block in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8, dropout=0.1, name=f"mha{block}")(x, x))
        x = layers.LayerNormalization()(x + layers.Dense(16)(layers.Dropout(0.1)(layers.Dense(32, "gelu")(x))))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


MODELS: dict[str, Callable[[], Any]] = {
    "mlp": mlp,
    "transformer": transformer,
    "cnn": lambda: models()["cnn"],
    "lstm": lambda: models()["lstm"],
}


def runs_in(space: Any) -> list[tuple[list[int], XlaModule]]:
    """What each run asked for and what its thread asked for next, and the program."""
    [found] = read_events(space).values()
    programs = Programs()
    programs.read(space)
    runs = find_runs(space, found, programs.requests)
    modules = programs.opened({run.program_id for run in runs})
    made = []
    for run in runs:
        births = list(run.births.values())
        mine = np.flatnonzero(found.births & (found.thread == found.thread[births[0]]))
        first = int(np.searchsorted(mine, births[0]))
        made.append((found.requested_bytes[mine[first : first + len(births) + 1]].tolist(), modules[run.program_id]))
    return made


def opened(space: Any) -> tuple[list[int], XlaModule]:
    (run,) = runs_in(space)
    return run


@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_is_opened_to_the_byte(name: str) -> None:
    keras.backend.clear_session()
    model = MODELS[name]()
    asked, module = opened(capture(training_step(model)))
    # The run asks for what the plan says, in that order...
    planned = len(module.requests)
    assert asked[:planned] == [request.bytes for request in module.requests]
    # ...and for a place for the metrics, which train_on_batch has just reset.
    assert set(asked[planned:]) <= {4}
    assert module.conflicts == 0
    (block,) = (allocation for allocation in module.allocations if allocation.kind == "temp")
    live = live_bytes(module, block.index)
    assert 0.97 * block.bytes <= live.max() <= block.bytes
    peak = int(live.argmax())
    alive = [
        b
        for b in module.buffers
        if b.allocation_index == block.index and b.alias_of is None and b.first <= peak <= b.last
    ]
    assert sum(b.bytes for b in alive) == live[peak]
    assert sum(b.bytes for b in alive if b.op_name) >= 0.999 * live[peak]
    assert module.backward_from is not None
    # Every variable is given away, and its new value takes its place: nothing is asked for.
    variables = [*model.trainable_variables, *(v for v in model.optimizer.variables if len(v.shape))]
    donated = sorted(a.bytes for a in module.allocations if a.kind == "parameter" and a.is_output)
    for size in {math.prod(v.shape) * 4 for v in variables}:
        assert donated.count(size) >= sum(math.prod(v.shape) * 4 == size for v in variables)


def test_a_prediction_gets_memory_for_its_result() -> None:
    keras.backend.clear_session()
    model = mlp()
    model.compile(jit_compile=True)
    x = np.ones((BATCH_SIZE, 16), "float32")
    model.predict_on_batch(x)
    asked, module = opened(capture(lambda: model.predict_on_batch(x)))
    outputs = [request.bytes for request in module.requests if request.kind == "output"]
    assert BATCH_SIZE * 10 * 4 in outputs
    planned = len(module.requests)
    assert asked[:planned] == [request.bytes for request in module.requests]
    assert not any(allocation.is_output for allocation in module.allocations if allocation.kind == "parameter")
    assert module.backward_from is None


@pytest.mark.long
def test_two_programs_in_a_capture_are_told_apart() -> None:
    keras.backend.clear_session()
    one, other = training_step(mlp()), training_step(MODELS["lstm"]())

    def both() -> None:
        one()
        other()
        one()

    # Those of earlier tests are still loaded.
    (_, first), (_, second), (_, third) = runs_in(capture(both))
    assert first is third
    assert first is not second


@pytest.mark.long
def test_two_programs_of_the_same_plan_are_told_apart() -> None:
    keras.backend.clear_session()
    one, twin = training_step(mlp()), training_step(mlp())

    def both() -> None:
        one()
        twin()
        twin()

    (_, first), (_, second), (_, third) = runs_in(capture(both))
    assert first.requests == second.requests
    assert first.program_id != second.program_id
    assert second is third


def field_numbers(descriptor: Any, found: dict[str, dict[str, tuple[int, str]]]) -> None:
    """Of a message and all in it: each field's number and the kind of its value."""
    if descriptor.full_name in found:
        return
    fields = found[descriptor.full_name] = {}
    for field in descriptor.fields:
        if field.message_type is not None:
            field_numbers(field.message_type, found)
        kinds = {field.TYPE_INT64: "int64", field.TYPE_STRING: "string", field.TYPE_BOOL: "bool"}
        kind = field.message_type.full_name if field.message_type is not None else kinds.get(field.type, "other")
        fields[field.name] = (field.number, f"[{kind}]" if field.is_repeated else kind)


def test_the_declared_fields_are_tensorflows() -> None:
    from tensorflow.compiler.xla.service import hlo_pb2

    found: dict[str, dict[str, tuple[int, str]]] = {}
    field_numbers(hlo_pb2.HloProto.DESCRIPTOR, found)
    # Those that are written inside another message there.
    inner = {
        "HloSequenceEntry": "HloScheduleProto.SequencesEntry",
        "HloSequence": "HloScheduleProto.InstructionSequence",
        "LogicalBufferLocation": "LogicalBufferProto.Location",
        "BufferAllocationAssigned": "BufferAllocationProto.Assigned",
    }
    for name, fields in _MESSAGES.items():
        theirs = found[f"xla.{inner.get(name, name)}"]
        for field, (number, kind) in fields.items():
            bare = kind.strip("[]")
            full = f"xla.{inner.get(bare, bare)}" if bare in _MESSAGES else bare
            assert theirs[field] == (number, kind.replace(bare, full)), (name, field)
