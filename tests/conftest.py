"""What every test must leave as it found it: no thread, patch or import hook of ours, no environment variable."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from protocols import know_protocols
from variants import pytest_addoption, pytest_collection_modifyitems, pytest_configure  # noqa: F401 -- hooks

# TensorFlow has oneDNN on or off as the CPU is, and with it an allocator that counts in part. Tests are not to depend
# on the CPU: those that want it off say so.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

know_protocols()

_JOIN_S, _MAX_JOINS = 1.0, 30
_METHODS = {
    "callback list": ("on_train_begin", "on_test_begin", "on_predict_begin"),
    "trainer": ("fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch"),
}
# pytest itself notes here which test runs; the frameworks set theirs as they are imported.
_FOREIGN_VARIABLES = ("PYTEST_", "TF_", "TF2_", "KERAS_BACKEND", "KMP_", "OMP_", "XLA_", "CUDA_", "MPL", "GRPC_")


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Compare the state of the process before and after each test.

    Set up first and so torn down last: what ``monkeypatch`` and other fixtures undo is undone by then.
    """
    before = global_state()
    assert not before["flusher threads"], "an earlier test left threads of ours"
    yield
    if "tensorflow" in sys.modules:
        # TensorFlow keeps some 6,000 objects of each fit, which would make every later search among all slower.
        gc.collect()
        if not our_threads():  # else what has them is kept by a failure's traceback, and goes with that
            gc.freeze()
    for _ in range(_MAX_JOINS):
        if not our_threads():
            break
        # A recorder that is garbage closes its files, which ends its thread. While the thread analyses a step, that
        # keeps the recorder, so it may be garbage only afterwards.
        gc.collect()
        for thread in our_threads():
            thread.join(_JOIN_S)
    after = global_state()
    # A module that is loaded during the test has no state to compare with.
    changed = {name: (before[name], value) for name, value in after.items() if name in before and before[name] != value}
    assert not changed, f"the test left behind: {changed}"


@pytest.fixture(autouse=True)
def _nothing_was_traced_before() -> None:
    """Have each test's fits traced, whatever fits that are alike earlier tests had traced."""
    registry = sys.modules.get("kerasmemwatch.tracing.traced_before")
    if registry is not None:
        registry.TRACED.clear()


@pytest.fixture(autouse=True)
def _there_were_no_calls_before() -> None:
    """Have memory judged from call to call within each test only, whatever earlier tests' fits left."""
    search = sys.modules.get("kerasmemwatch.watch.search.call_search")
    if search is not None:
        search.CALL_SEARCH.forget()


def our_threads() -> list[threading.Thread]:
    """The threads that kerasmemwatch started and that still run."""
    return [thread for thread in threading.enumerate() if thread.name == "kerasmemwatch-flush"]


def global_state() -> dict[str, Any]:
    """What a test may not change, by name. Keras' classes are looked at only where Keras is loaded."""
    state: dict[str, Any] = {
        "flusher threads": our_threads(),
        "callbacks of garbage collection": [name for name in map(_identity, gc.callbacks) if "kerasmemwatch" in name],
        "import hooks": list(map(_identity, sys.meta_path)),
        "environment": {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_VARIABLES)},
    }
    tapes = sys.modules.get("tensorflow.python._pywrap_tfe")
    if tapes is not None:
        state["no tape records"] = tapes.TFE_Py_TapeSetIsEmpty()
    keras = sys.modules.get("keras")
    for name, owner in (("callback list", _callback_list(keras)), ("trainer", _trainer(keras))):
        if owner is not None:
            state[name] = {method: getattr(owner, method) for method in _METHODS[name]}
    return state


def _identity(hook: object) -> str:
    # By name: pytest and setuptools put several hooks of one class there, which have no other name.
    return f"{type(hook).__module__}.{type(hook).__qualname__} {getattr(hook, '__name__', '')}"


def _callback_list(keras: Any) -> Any:
    return getattr(getattr(keras, "callbacks", None), "CallbackList", None)


def _trainer(keras: Any) -> Any:
    model = getattr(keras, "Model", None)
    return next((owner for owner in getattr(model, "__mro__", ()) if "train_on_batch" in vars(owner)), None)
