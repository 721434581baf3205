"""Key under which fits are equivalent, so that their steps use the same memory: plain values, no references.

Computing it calls no user code. A fit with an unknown property is equivalent to no other.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator
from types import FrameType
from typing import Any

from kerasmemwatch.attribution.hooks.layer_hooks import execution_mode
from kerasmemwatch.attribution.live.batch_spec import tensor_specs
from kerasmemwatch.attribution.variables.layer_paths import PathedLayer, lasting_name
from kerasmemwatch.attribution.variables.variable_size import variable_size
from kerasmemwatch.compat.keras import ADAPTER_DATASET, DATA_ADAPTER, EPOCH_ITERATOR
from kerasmemwatch.compat.tensorflow import BATCH_SIZE, INPUT_DATASET, ITERATOR_DATASET

__all__ = ["fit_kind"]

# Attributes that do not affect sizes.
_LEFT_OUT = frozenset({"built", "name", "seed", "stop_training"})
_STEPS = ("call", "train_step", "test_step", "predict_step", "compute_loss")
_MAX_ITEMS, _MAX_DATASETS = 16, 32


def fit_kind(
    model: Any, layers: tuple[PathedLayer, ...], stage: str, arguments: Any, frame: FrameType | None
) -> Hashable | None:
    """Compute the key that equivalent fits share.

    Returns:
        A hashable value; ``None`` if the model is not built yet, or the batch size is unknown.
    """
    if not all(getattr(layer.layer, "built", True) for layer in layers):
        return None
    batch = _batch(arguments, frame)
    if batch is None:
        return None
    optimizer, strategy = getattr(model, "optimizer", None), getattr(model, "distribute_strategy", None)
    return (
        stage,
        execution_mode(model),
        getattr(model, "steps_per_execution", 1),
        (_class(strategy), getattr(strategy, "num_replicas_in_sync", 1)),
        batch,
        tuple(_layer(layer) for layer in layers),
        tuple(_variable(variable) for variable in model.variables),
        _optimizer(optimizer),
        stage != "train" and getattr(optimizer, "built", False),
        _loss(getattr(model, "loss", None)),
        tuple(_class(metric) for metric in getattr(model, "metrics", ())) if stage != "train" else (),
    )


def _layer(layer: PathedLayer) -> Hashable:
    kind = type(layer.layer)
    codes = tuple(_code(getattr(kind, name, None)) for name in _STEPS)
    policy = getattr(getattr(layer.layer, "dtype_policy", None), "name", "")
    raw = tuple(_variable(held.value) for held in layer.held if held.kind == "variable")
    return layer.depth, _class(layer.layer), lasting_name(layer.layer), str(policy), codes, raw, _settings(layer.layer)


def _variable(variable: Any) -> Hashable:
    size = variable_size(variable)
    value = getattr(variable, "value", variable)
    device = getattr(value, "device", "") if not callable(value) else getattr(variable, "device", "")
    return size.shape, size.dtype, size.replicas, bool(getattr(variable, "trainable", False)), str(device)


def _optimizer(optimizer: Any) -> Hashable:
    inner = getattr(optimizer, "inner_optimizer", None)  # a loss-scaling optimizer has one
    # Its lists are of slots, which the first fit's first step makes.
    return _class(optimizer), _settings(optimizer, but=list), None if inner is None else _optimizer(inner)


def _loss(loss: Any) -> Hashable:
    if isinstance(loss, dict):
        return tuple((str(name), _loss(each)) for name, each in loss.items())
    if isinstance(loss, (list, tuple)):
        return tuple(map(_loss, loss))
    return loss if isinstance(loss, str) else _code(loss) or _class(loss)


def _settings(value: Any, but: type | tuple[()] = ()) -> Hashable:
    """Plain attributes of a layer or optimizer; for a float (such as a rate), only whether it is 0.

    Args:
        but: Attributes of this type are left out.
    """
    found = []
    for name, setting in sorted(vars(value).items()) if hasattr(value, "__dict__") else ():
        if name.startswith("_") or name in _LEFT_OUT or isinstance(setting, but):
            continue
        plain = _plain(setting)
        if plain is not None:
            found.append((name, plain))
    return tuple(found)


def _plain(value: Any) -> Hashable:
    if isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return "number" if value else "0"
    if isinstance(value, (list, tuple)) and len(value) <= _MAX_ITEMS:
        return tuple(map(_plain, value))
    return _code(value)


def _class(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _code(function: Any) -> int | None:
    """Hash that distinguishes functions of the same name, as in a notebook."""
    code = getattr(function, "__code__", None)
    return None if code is None else hash(code)


def _batch(arguments: Any, frame: FrameType | None) -> Hashable | None:
    """Shapes of a batch's tensors, sizes of their items, and the class of its data adapter."""
    iterator = arguments[0] if arguments else None
    specs = tensor_specs(getattr(iterator, "element_spec", arguments))
    adapter = None
    if frame is not None and not EPOCH_ITERATOR.is_missing and EPOCH_ITERATOR.attribute in frame.f_code.co_varnames:
        adapter = DATA_ADAPTER.of(frame.f_locals.get(EPOCH_ITERATOR.attribute))
    rows = batch_rows(adapter, iterator) if any(shape[:1] == (None,) for shape, _ in specs) else None
    found = tuple(((rows, *shape[1:]) if shape[:1] == (None,) else shape, item) for shape, item in specs)
    is_known = bool(found) and not any(size is None for shape, _ in found for size in shape)
    return (_class(adapter), found) if is_known else None


def batch_rows(adapter: Any, iterator: Any = None) -> int | None:
    """Batch size where the shape does not include it, because the last batch may be smaller."""
    rows = getattr(adapter, "batch_size", None)
    if isinstance(rows, int):
        return rows
    return next(_sizes(ADAPTER_DATASET.of(adapter) or ITERATOR_DATASET.of(iterator)), None)


def _sizes(dataset: Any) -> Iterator[int]:
    """Yield the batch sizes of a dataset's transformations, last first."""
    tensorflow = sys.modules.get("tensorflow")
    for _ in range(_MAX_DATASETS):
        size = BATCH_SIZE.of(dataset)
        value = None if size is None or tensorflow is None else tensorflow.get_static_value(size)
        if value is not None:
            yield int(value)
        dataset = INPUT_DATASET.of(dataset)
