"""Who asked for the memory: by the operation's name, by the traceback, by the variables of a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.out_of_memory import failing_layer
from kerasmemwatch.out_of_memory.failing_layer import by_op_name, by_traceback, rows_given
from kerasmemwatch.records.owners import Frame

CONV = Frame("encoder/conv", "Conv2D", "forward")


def test_an_operation_that_the_hooks_saw() -> None:
    found = by_op_name("model/encoder/conv/Conv2D", OpOwners({"model/encoder/conv/Conv2D": [CONV]}), {})
    assert found is not None and found.frame == CONV and "hooks" in found.known_from


def test_an_operation_of_a_function_that_they_did_not_see() -> None:
    op = "gradient_tape/model_1/encoder_1/conv_1/Conv2DBackpropInput"
    found = by_op_name(op, OpOwners({}), {"encoder/conv": "Conv2D"})
    assert found is not None and found.frame == CONV._replace(phase="backward") and "name" in found.known_from
    assert by_op_name("no/layer", OpOwners({}), {"encoder/conv": "Conv2D"}) is None


class Layer:
    """Stands in for Keras' layers, and for its models where ``fit`` runs the step."""

    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run

    def call(self) -> None:
        self.run()


class Model(Layer):
    def train_step(self) -> None:
        self.run()


class Optimizer(Layer):
    def apply(self) -> None:
        self.run()


def fail() -> None:
    raise ValueError("no memory")


def raised(run: Callable[[], object]) -> BaseException:
    """The error, after its frames have ended."""

    def within() -> BaseException:
        try:
            run()
        except ValueError as error:
            return error
        raise AssertionError

    return within()


def test_the_innermost_layer_in_the_traceback() -> None:
    inner = Layer(fail)
    outer = Layer(inner.call)
    paths = {id(inner): ("outer/inner", "Dense"), id(outer): ("outer", "Block")}
    found = by_traceback(raised(outer.call), paths, {})
    assert found is not None and found.frame == Frame("outer/inner", "Dense", "forward")


def test_a_layer_in_what_keras_has_replaced() -> None:
    layer = Layer(fail)

    def replace() -> None:
        try:
            layer.call()
        except ValueError:
            raise ValueError("with the call's arguments") from None

    found = by_traceback(raised(replace), {id(layer): ("a", "Dense")}, {})
    assert found is not None and found.frame.owner == "a"


def test_an_error_that_was_handled_before_is_no_part_of_it() -> None:
    layer = Layer(lambda: int("x"))

    def later() -> None:
        try:
            {}["x"]
        except KeyError:
            fail()

    assert by_traceback(raised(later), {id(layer): ("a", "Dense")}, {}) is None


def test_a_model_at_its_own_call_but_not_at_its_step() -> None:
    model = Model(fail)
    paths = {id(model): ("model", "Model")}
    assert by_traceback(raised(model.train_step), paths, {}) is None
    found = by_traceback(raised(model.call), paths, {})
    assert found is not None and found.frame.owner == "model"


def test_an_optimizer() -> None:
    found = by_traceback(raised(Optimizer(fail).apply), {}, {})
    assert found is not None and found.frame == Frame("optimizer", "", "update")


def _gradient_function(inputs: list[int]) -> None:
    """Named as TensorFlow's."""
    fail()


@pytest.mark.parametrize(("inputs", "owner"), [([7, 4096], "dense"), ([7, 8], ""), ([], "")])
def test_a_gradient_has_its_layer_s_variable_as_an_input(
    inputs: list[int], owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failing_layer, "host_address", lambda tensor: tensor)
    model: Any = Model(lambda: _gradient_function(inputs))
    found = by_traceback(raised(model.train_step), {}, {4096: ("dense", "Dense")})
    assert found is not None and found.frame.owner == owner and found.frame.phase == "backward"


def test_frames_that_still_run_are_not_looked_into() -> None:
    layer = Layer(fail)

    def still_running(self: Layer) -> object:
        try:
            fail()
        except ValueError as error:
            return by_traceback(error, {id(self): ("a", "Dense")}, {})
        raise AssertionError

    assert still_running(layer) is None


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        (np.ones((7, 2)), 7),
        ([np.ones((7, 2)), np.ones(3)], 7),
        ({"a": (np.ones((7, 2)),)}, 7),
        (np.float32(1), None),
        ([], None),
        (None, None),
    ],
)
def test_the_batch_is_what_a_method_for_one_batch_was_given(given: Any, rows: int | None) -> None:
    def train_on_batch(x: Any) -> None:
        fail()

    assert rows_given(raised(lambda: train_on_batch(given))) == rows


def test_a_loop_is_given_no_batch() -> None:
    def fit(x: Any) -> None:
        fail()

    assert rows_given(raised(lambda: fit(np.ones((7, 2))))) is None
