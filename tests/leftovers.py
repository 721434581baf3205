"""What tracing must leave as it found it: every function of the frameworks, the profiler, the files it made."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

HOOKED = (
    "keras.",
    "tensorflow.python.eager",
    "tensorflow.python.framework",
    "tensorflow.python.profiler",
    "tensorflow.python.ops.lookup_ops",
    "tensorflow.python.ops.script_ops",
)


def functions() -> dict[tuple[str, str, str], Any]:
    """Every function of the frameworks' modules and of their classes, by where it is."""
    found: dict[tuple[str, str, str], Any] = {}
    for module_name, module in sys.modules.copy().items():
        if not module_name.startswith(HOOKED):
            continue
        for name, value in list(vars(module).items()):
            if isinstance(value, type) and value.__module__ == module_name:
                for attribute, member in list(vars(value).items()):
                    if callable(member) or isinstance(member, (staticmethod, classmethod, property)):
                        found[module_name, name, attribute] = member
            if callable(value):
                found[module_name, name, ""] = value
    return found


def changed(before: dict[tuple[str, str, str], Any]) -> list[tuple[str, str, str]]:
    """What is not as it was, or new in a module or class that was there."""
    after, places = functions(), {place[:2] for place in before}
    return [
        place
        for place in {*before, *after}
        if before.get(place) is not after.get(place) and (place in before or (place[2] and place[:2] in places))
    ]


def session_can_start() -> bool:
    """Whether no profiler session is active."""
    import tensorflow as tf

    try:
        tf.profiler.experimental.start("", tf.profiler.experimental.ProfilerOptions(host_tracer_level=1))
    except tf.errors.AlreadyExistsError:
        return False
    tf.profiler.experimental.stop(save=False)
    return True


@functools.cache
def _warm_up() -> None:
    """Have what fit loads and makes lazily there before the comparison."""
    import keras
    import numpy as np

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)


@contextmanager
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compare every function of the frameworks, the profiler and the temporary files before and after."""
    from tensorflow.python import pywrap_tfe
    from tensorflow.python.eager import backprop, context

    made: list[str] = []
    make = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *args, **kwargs: made.append(make(*args, **kwargs)) or made[-1])
    registered: list[Any] = [backprop._gradient_function]
    register = pywrap_tfe.TFE_Py_RegisterGradientFunction
    # TensorFlow tells nobody which function it calls for gradients.
    spy = lambda function: (registered.append(function), register(function))  # noqa: E731
    _warm_up()
    assert session_can_start()
    pywrap_tfe.TFE_Py_RegisterGradientFunction = spy
    before = functions()
    try:
        yield
        assert changed(before) == []
    finally:
        pywrap_tfe.TFE_Py_RegisterGradientFunction = register
    assert registered[-1] is backprop._gradient_function
    assert not context.context().op_callbacks
    assert session_can_start()
    assert not [path for path in made if os.path.exists(path)]
