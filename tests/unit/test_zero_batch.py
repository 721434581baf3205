"""Shapes and targets of a batch that nobody gave; nothing here loads a framework."""

from __future__ import annotations

import pytest

from kerasmemwatch.errors import InvalidArgumentError
from kerasmemwatch.watch.model_summary.zero_batch import concrete_shape, is_sparse_loss


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((None, 28, 28, 1), (32, 28, 28, 1)),
        ((None,), (32,)),
        ((4, 8), (32, 8)),
        ((), ()),
        ([None, 3], (32, 3)),
    ],
)
def test_the_batch_gets_its_size(shape: tuple[int | None, ...], expected: tuple[int, ...]) -> None:
    assert concrete_shape("image", shape, 32) == expected


@pytest.mark.parametrize("shape", [(None, None, 8), (4, None), None])
def test_another_unknown_size_is_asked_for(shape: tuple[int | None, ...] | None) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        concrete_shape("sequence", shape, 32)
    message = str(caught.value)
    assert "input 'sequence'" in message
    assert f"Received: shape={shape}" in message
    assert "inputs=keras.Input(" in message


class SparseCategoricalCrossentropy:
    """Named as Keras' loss is."""


class MeanSquaredError:
    """Named as Keras' loss is."""


def sparse_of_mine(y_true: object, y_pred: object) -> object:
    return y_true


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", SparseCategoricalCrossentropy(), sparse_of_mine])
def test_losses_that_take_the_number_of_a_class(loss: object) -> None:
    assert is_sparse_loss(loss)


@pytest.mark.parametrize("loss", ["mse", MeanSquaredError(), len, None])
def test_losses_that_take_a_value_for_each_output(loss: object) -> None:
    assert not is_sparse_loss(loss)
