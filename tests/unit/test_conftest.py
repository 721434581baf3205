"""The check that nothing is left behind, itself checked: what it would miss must not pass as clean."""

from __future__ import annotations

import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def state(request: pytest.FixtureRequest) -> Any:
    """The function that the check in ``tests/conftest.py`` compares with itself."""
    [plugin] = [p for p in request.config.pluginmanager.get_plugins() if hasattr(p, "global_state")]
    return plugin.global_state


def test_sees_a_thread_of_ours(state: Any) -> None:
    may_end = threading.Event()
    thread = threading.Thread(target=may_end.wait, name="kerasmemwatch-flush", daemon=True)
    thread.start()
    try:
        assert state()["flusher threads"] == [thread]
    finally:
        may_end.set()
        thread.join()
    assert state()["flusher threads"] == []


def test_sees_an_import_hook(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state()
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=lambda *_: None), *sys.meta_path])
    assert state()["import hooks"] != before["import hooks"]


def test_sees_a_variable_of_the_environment(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state()
    monkeypatch.setenv("KERASMEMWATCH_RUN", "1")
    assert state()["environment"] != before["environment"]


def test_sees_a_patched_method_of_keras(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def method(self: object) -> None: ...

    begins = dict.fromkeys(("on_train_begin", "on_test_begin", "on_predict_begin"), method)
    calls = ("fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch")
    keras = ModuleType("keras")
    keras.callbacks = SimpleNamespace(CallbackList=type("CallbackList", (), begins))  # type: ignore[attr-defined]
    keras.Model = type("Model", (type("Trainer", (), dict.fromkeys(calls, method)),), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keras", keras)
    before = state()
    monkeypatch.setattr(keras.callbacks.CallbackList, "on_train_begin", lambda self: None)
    assert state()["callback list"] != before["callback list"]
    assert state()["trainer"] == before["trainer"]
    monkeypatch.setattr(keras.Model.__mro__[1], "train_on_batch", lambda self: None)
    assert state()["trainer"] != before["trainer"]
