"""Loops may iterate over anything, also where there is no TensorFlow."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import pytest

from kerasmemwatch.attribution.live.shuffle_buffers import shuffle_buffer


@pytest.mark.parametrize("data", [[1], range(3), (each for each in "ab")], ids=["list", "range", "generator"])
def test_what_is_no_pipeline_of_tensorflows_is_not_asked(data: Iterable[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # an import fails
    assert shuffle_buffer(iter(data)) is None
