"""Layers by the names of operations alone."""

from __future__ import annotations

import pytest

from kerasmemwatch.attribution.owners.name_scopes import frames_by_name

LAYERS = {
    "model": "Functional", "encoder": "Encoder", "encoder/c1": "Conv2D", "encoder/block": "Block",
    "encoder/block/c1": "Conv2D", "head": "Dense", "lstm": "LSTM", "lstm/lstm_cell": "LSTMCell", "a_2": "Dense",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "owner", "phase"),
    [
        ("StatefulPartitionedCall/model_1/encoder_1/c1_1/convolution", "encoder/c1", "forward"),
        ("StatefulPartitionedCall/model_1/encoder_1/block_1/c1_2/Relu", "encoder/block/c1", "forward"),
        ("StatefulPartitionedCall/gradient_tape/model_1/head_1/MatMul/MatMul_1", "head", "backward"),
        ("StatefulPartitionedCall/model_1/add", "model", "forward"),
        ("model_1/lstm_1/while/body/_12/model_1/lstm_1/while/lstm_cell_1/MatMul", "lstm/lstm_cell", "forward"),
        ("model_1/a_2/MatMul", "a_2", "forward"),
        ("model_1/a_2_1/MatMul", "a_2", "forward"),
        ("StatefulPartitionedCall/compile_loss/mse/sub", "loss", "forward"),
        ("StatefulPartitionedCall/gradient_tape/compile_loss/mse/mul", "loss", "backward"),
        ("StatefulPartitionedCall/adam/mul", "optimizer", "update"),
        ("StatefulPartitionedCall/adam_1/mul", "optimizer", "update"),
    ],
)
def test_an_operation_is_the_innermost_layers(name: str, owner: str, phase: str) -> None:
    [(found, frame)] = frames_by_name([name], LAYERS, ["adam"]).items()
    assert (found, frame.owner, frame.class_name, frame.phase) == (name, owner, LAYERS.get(owner, ""), phase)


@pytest.mark.parametrize("name", ["MatMul", "", "head", "elsewhere/c1x/add", "c1/add", "sgd/mul"])
def test_of_others_nothing_is_said(name: str) -> None:
    # An operation may be called as a layer is, and a layer of an inner level stands below its outer one.
    assert frames_by_name([name], LAYERS, ["adam"]) == {}


def test_models_names_stand_in_front_where_there_are_several() -> None:
    layers = {"one/one": "Functional", "one/d": "Dense", "two/two": "Functional", "two/d": "Dense"}
    found = frames_by_name(["call/one_1/d_1/MatMul", "call/two_1/d_1/MatMul"], layers)
    assert [frame.owner for frame in found.values()] == ["one/d", "two/d"]
