"""What TensorFlow's native profiler session makes of the options that it is given."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from kerasmemwatch.attribution.events import profiler_capture
from kerasmemwatch.attribution.events.profiler_capture import Capture

pytestmark = pytest.mark.usefixtures("exact_counting")


def captured() -> list[str]:
    """Names of the host's events while an operation runs."""
    tensor, capture = tf.ones((100, 100)), Capture()
    capture.start()
    tf.matmul(tensor, tensor)
    space = xplane_pb2.XSpace.FromString(capture.stop() or b"")
    return [
        plane.event_metadata[event.metadata_id].name
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    ]


def test_a_capture_has_the_allocators_events() -> None:
    assert "MemoryAllocation" in captured()


def test_options_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a machine without a GPU the tracer of kernels cannot be seen to be off, but the host's can.
    monkeypatch.setattr(profiler_capture, "_OPTIONS", {"host_tracer_level": profiler_capture._Number(0)})
    assert captured() == []


def test_a_forked_child_neither_ends_nor_destroys_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both take locks that a thread of the parent may have held at the fork."""
    capture = Capture()
    capture.start()
    monkeypatch.setattr(capture, "_pid", -1)
    session = weakref.ref(capture._session)
    capture.discard()
    gc.collect()
    kept = session()
    assert kept is not None
    kept.stop()  # only an active session can be
    assert "MemoryAllocation" in captured()


@pytest.mark.long
def test_nothing_is_printed_of_the_options(run_python: Any) -> None:
    done = run_python(
        """
        import tensorflow as tf
        from kerasmemwatch.attribution.events.profiler_capture import Capture

        capture = Capture()
        capture.start()
        tf.ones(3)
        assert capture.stop()
        """,
        TF_CPP_MIN_LOG_LEVEL="0",
    )
    assert "tracer_level" not in done.stderr and "Profiler session started" in done.stderr


def test_compiled_programs_are_captured_too() -> None:
    tensor, capture = tf.ones((100, 100)), Capture()
    function = tf.function(lambda: tf.matmul(tensor, tensor) + 1, jit_compile=True)
    capture.start()
    function()
    space = xplane_pb2.XSpace.FromString(capture.stop() or b"")
    [programs] = [plane for plane in space.planes if plane.name == "/host:metadata"]
    assert programs.event_metadata
