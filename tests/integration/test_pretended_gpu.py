"""Fits on a CPU whose memory says that it is a GPU's: what needs no kernel of a GPU is then as it is on one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from gpu_captures import silence
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from kerasmemwatch.analysis.caveats import all_notes, untraced
from kerasmemwatch.attribution.events.profiler_capture import Capture
from kerasmemwatch.attribution.function_constants import FirstCalls
from kerasmemwatch.attribution.hooks.owner_stack import OwnerStack
from kerasmemwatch.attribution.live import tensor_places
from kerasmemwatch.faults import Faults
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

ROWS, BATCH_SIZE, WIDTH = 256, 32, 64


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], None]:
    """Have tensors and variables say that they lie on ``GPU:0``, and captures changed by a function."""

    def pretended(change: Callable[[Any], None]) -> None:
        monkeypatch.setattr(tensor_places, "_device", lambda name: "GPU:0")
        stop = Capture.stop

        def changed(self: Capture) -> bytes | None:
            data = stop(self)
            if data is None:
                return None
            space = xplane_pb2.XSpace.FromString(data)
            change(space)
            return bytes(space.SerializeToString())

        monkeypatch.setattr(Capture, "stop", changed)

    return pretended


def renamed(space: Any) -> None:
    """The host's allocator becomes a GPU's."""
    allocators = set()
    for plane in space.planes:
        keys = {key for key, stat in plane.stat_metadata.items() if stat.name == "allocator_name"}
        for line in plane.lines:
            for event in line.events:
                allocators |= {(plane.id, stat.ref_value) for stat in event.stats if stat.metadata_id in keys}
    for plane in space.planes:
        for number, key in allocators:
            if number == plane.id and key in plane.stat_metadata:
                plane.stat_metadata[key].name = "GPU_0_bfc"


def fitted(**options: Any) -> MemoryWatch:
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(128, "relu"), keras.layers.Dense(1)])
    model.compile("adam", "mse", **options)
    model.optimizer.build(model.trainable_variables)  # else TensorFlow makes the step's graph twice
    watch = MemoryWatch(None, trace=[3], strict=True, verbose=0)
    x, y = np.ones((ROWS, WIDTH), "float32"), np.ones((ROWS, 1), "float32")
    model.fit(x, y, batch_size=BATCH_SIZE, verbose=0, callbacks=[watch])
    return watch


def test_a_report_tells_that_a_whole_data_set_lies_on_the_gpu(pretend: Any) -> None:
    pretend(renamed)
    report = fitted(jit_compile=False).report
    assert report.traced is not None and report.traced.device == "GPU:0"
    size = ROWS * (WIDTH + 1) * 4 / 1024
    note = f"A whole data set is on GPU:0 ({size:.1f} KiB), of which a step needs {size / 8:.1f} KiB."
    assert note in " ".join(str(report).split())
    assert "with tf.device('CPU:0'): data = tf.data.Dataset" in " ".join(str(report).split())


def test_a_data_set_in_host_memory_is_not_told() -> None:
    assert "data set lies" not in fitted(jit_compile=False).report.text(everything=True)


def silenced(space: Any) -> None:
    """A capture as of an allocator that emits no events, as ``cuda_malloc_async``; the host's does."""
    renamed(space)
    silence(space)


def test_an_allocator_without_events_is_told_in_a_line_with_the_remedy(
    pretend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_GPU_ALLOCATOR", "cuda_malloc_async")
    pretend(silenced)
    report = fitted(jit_compile=False).report
    assert report.traced is None and report.coverage is None and report.peak.by_category == {}
    assert report.peak.bytes
    [note] = [note for note in all_notes(report) if "not known" in note or "unknown" in note]
    assert note == (
        "GPU:0: its allocator tells nothing of single allocations. The bytes of its peaks are exact; the layers that "
        "hold them are unknown. To measure layers, unset TF_GPU_ALLOCATOR, which is 'cuda_malloc_async'."
    )
    assert " ".join(str(report).split()).count("tells nothing of single allocations") == 1
    assert untraced(report) == note  # in the tab, and in place of figures
    assert "At the traced peak" not in str(report)


@pytest.mark.parametrize("mode", [{"jit_compile": False}, {"run_eagerly": True}], ids=["graph", "eager"])
def test_what_is_alive_on_a_gpu_is_known_by_its_addresses(pretend: Any, mode: dict[str, bool]) -> None:
    pretend(renamed)
    report = fitted(**mode).report
    assert report.traced is not None and report.traced.device == "GPU:0"
    assert report.coverage is not None and report.coverage > 0.99
    [step] = report.steps
    timeline = step.timeline
    baseline = timeline.birth < 0
    for owner in ("dense", "optimizer"):
        mine = baseline & np.array([name.startswith(owner) for name in timeline.owners])[timeline.owner]
        assert mine.any() and timeline.address[mine].all(), owner


@pytest.mark.parametrize("in_step", [False, True])
def test_what_python_holds_on_a_gpu_is_no_functions(pretend: Any, in_step: bool) -> None:
    pretend(renamed)
    stack, held = OwnerStack(), []
    calls = FirstCalls(stack, Faults(strict=True))
    calls.in_step = in_step
    with calls.captured():
        stack.made(stack.graph(pretend), "an operation")
        held.append(tf.Variable(tf.zeros(5000)))
        held[0].assign_add(tf.ones(5000))
    assert not [kept for kept in calls.kept() if kept.bytes >= 20_000]
