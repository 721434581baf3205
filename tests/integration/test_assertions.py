"""Assertions for other projects' tests, where tensors are kept."""

from __future__ import annotations

import gc
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf

import kerasmemwatch as kmw
from kerasmemwatch.errors import MemoryGrowthError
from kerasmemwatch.leaks.evidence import heap

KEPT: Any = SimpleNamespace(trainer=SimpleNamespace(state={"losses": []}))


def step() -> None:
    KEPT.trainer.state["losses"].append(tf.ones((32, 1024)))


@pytest.mark.long
@pytest.mark.parametrize("second", [0.0, 0.3], ids=["a fast machine", "a slow machine"])
def test_what_grows_is_named_where_it_is_kept(second: float, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.unfreeze()  # what earlier tests froze is not looked at, and this module's list may be among it
    if second:
        clock = itertools.count()
        monkeypatch.setattr(heap.time, "thread_time", lambda: next(clock) * second)
    with pytest.raises(MemoryGrowthError) as caught:
        kmw.testing.assert_no_growth(step)
    KEPT.trainer.state["losses"].clear()
    message = str(caught.value)
    assert "Tensors are kept (retained_tensors): +128.0 KiB a repeat" in message
    assert "KEPT.trainer.state['losses'] (list) holds 130 tensors" in message
    assert message.endswith("ignore=['retained_tensors']")


@pytest.mark.long
def test_plain_values_are_named_where_they_are_kept() -> None:
    gc.unfreeze()
    texts: list[str] = []

    def step() -> None:
        texts.append(str(len(texts))[-1] * 4_000_000)

    with pytest.raises(MemoryGrowthError, match="RSS of the process") as raised:
        kmw.testing.assert_no_growth(step, repeats=50)
    text = str(raised.value)
    assert "python_objects" in text and "texts.append(str(len(texts))[-1] * 4_000_000)" in text
    assert "held outside Python" not in text
