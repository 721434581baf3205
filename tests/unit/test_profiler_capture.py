"""How the profiler's session is begun, with a stand-in for TensorFlow's."""

from __future__ import annotations

import operator
from typing import Any

import pytest

from kerasmemwatch.attribution.events.profiler_capture import _OPTIONS, _started


class Native:
    """TensorFlow's module, whose sessions take what one of its versions takes."""

    def __init__(self, refuses: type[Exception] | None = None) -> None:
        self.begun: list[dict[str, Any]] = []
        self._refuses = refuses

    def ProfilerSession(self) -> Any:
        return self

    def start(self, path: str, options: dict[str, Any]) -> None:
        if options and self._refuses is not None:
            raise self._refuses("another type was expected")
        self.begun.append(options)


def test_the_tracer_of_kernels_is_off() -> None:
    native = Native()
    _started(native.ProfilerSession, "folder")
    [options] = native.begun
    assert operator.index(options["device_tracer_level"]) == 0


def test_an_option_has_no_truth_value_of_its_own() -> None:
    # With one, the native session would take it for a bool, and refuse it.
    for option in _OPTIONS.values():
        assert not hasattr(type(option), "__bool__") and not hasattr(type(option), "__len__")


@pytest.mark.parametrize("refuses", [TypeError, ValueError, RuntimeError])
def test_a_tensorflow_that_takes_options_otherwise_is_told_none(refuses: type[Exception]) -> None:
    native = Native(refuses)
    _started(native.ProfilerSession, "folder")
    assert native.begun == [{}]


def test_a_session_that_is_refused_for_another_reason_is_not_begun() -> None:
    class AlreadyExistsError(Exception):
        pass

    native = Native(AlreadyExistsError)
    with pytest.raises(AlreadyExistsError):
        _started(native.ProfilerSession, "folder")
    assert native.begun == []
