"""A batch for a model without data: zeros, which are valid numbers, valid indices and empty strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kerasmemwatch.compat.keras import FUNCTIONAL
from kerasmemwatch.errors import InvalidArgumentError, InvalidTypeError

__all__ = ["concrete_shape", "example_inputs", "example_targets", "is_sparse_loss"]


def concrete_shape(name: str, shape: Sequence[int | None] | None, batch_size: int) -> tuple[int, ...]:
    """The shape of a batch. Raises ``InvalidArgumentError`` if another dimension is unknown."""
    if shape is None or None in shape[1:]:
        raise InvalidArgumentError(
            f"Expected the shape of input {name!r} to be known but for the batch. Received: shape={shape}. Memory "
            f"depends on it: pass inputs=, a batch of the size you train with, or "
            f"inputs=keras.Input(<shape without None>, dtype=...) in the structure of the model's inputs."
        )
    return (batch_size, *(int(size) for size in shape[1:] if size is not None)) if len(shape) else ()


def example_inputs(model: Any, inputs: Any, batch_size: int) -> Any:
    """A batch of inputs, in the structure that the model takes.

    Args:
        inputs: What the caller gave: arrays and tensors are used as they are; specifications (``keras.Input``,
            ``tf.TensorSpec``) become zeros. ``None`` uses the model's own inputs.

    Raises:
        InvalidArgumentError: If the model does not show its inputs, or they cannot be made.
    """
    import keras

    asked = _specifications(model) if inputs is None else inputs
    # A dataset would treat a list as a tensor.
    return keras.tree.map_structure(lambda spec: _tensor(spec, batch_size), keras.tree.lists_to_tuples(asked))


def example_targets(outputs: Any, loss: Any, names: Sequence[str] = ()) -> Any:
    """Targets with which a loss can compare the outputs: class 0 for each sample, or zeros.

    Args:
        names: Names of listed outputs, as keys of a dictionary of losses.
    """
    import keras
    import tensorflow as tf

    flat = keras.tree.flatten(outputs)
    losses = keras.tree.flatten(loss) if isinstance(loss, (dict, list, tuple)) else [loss] * len(flat)
    if isinstance(loss, dict):
        # A tree's dictionaries are flattened in the order of their keys.
        losses = [loss.get(name) for name in (sorted(outputs) if isinstance(outputs, dict) else names)]
    if len(losses) != len(flat):
        losses = [None] * len(flat)
    with tf.device("CPU:0"):
        made = [
            tf.zeros(output.shape[:-1], tf.int32) if is_sparse_loss(one) else tf.zeros(output.shape, output.dtype)
            for output, one in zip(flat, losses, strict=True)
        ]
    return keras.tree.lists_to_tuples(keras.tree.pack_sequence_as(outputs, made))


def is_sparse_loss(loss: Any) -> bool:
    """Whether a loss takes a class number as target rather than a value for each output."""
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return str(name).lower().startswith("sparse")


def _specifications(model: Any) -> Any:
    # A Sequential's inputs are those of the functional model that it builds internally.
    for holder in (model, FUNCTIONAL.of(model)):
        try:
            if holder is not None and holder.inputs:
                return holder.input
        except (AttributeError, ValueError):
            continue  # not built
    raise InvalidArgumentError(
        f"Expected a model that tells what its inputs are, as functional models do and Sequential ones with an Input. "
        f"Received: model={model.name!r} (of type {type(model).__name__}). Pass inputs=, a batch of what it takes, or "
        f"inputs=keras.Input(<shape>, dtype=...)."
    )


def _tensor(spec: Any, batch_size: int) -> Any:
    import keras
    import numpy as np
    import tensorflow as tf

    if not isinstance(spec, (keras.KerasTensor, tf.TypeSpec)):
        if not hasattr(spec, "shape"):
            raise InvalidTypeError(
                f"Expected inputs to be made of arrays, tensors or keras.Input(...). Received: {spec!r} (of type "
                f"{type(spec).__name__})."
            )
        # As Keras does with a fit's arrays.
        is_double = not tf.is_tensor(spec) and np.asarray(spec).dtype == np.float64
        return np.asarray(spec, keras.config.floatx()) if is_double else spec
    name, kind = str(getattr(spec, "name", None) or "input"), getattr(spec, "dtype", None)
    if getattr(spec, "sparse", False) or getattr(spec, "ragged", False) or kind is None:
        raise InvalidArgumentError(
            f"Expected input {name!r} to be dense. Received: {spec!r}. Pass inputs=, a batch with as many values as "
            f"you train with: memory depends on their number."
        )
    shape = concrete_shape(name, None if spec.shape is None else tuple(spec.shape), batch_size)
    # A dataset keeps its tensors in host memory.
    with tf.device("CPU:0"):
        return tf.zeros(shape, kind)
