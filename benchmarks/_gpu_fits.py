"""What is measured on a GPU, each in a process of its own that loads TensorFlow; all figures are JSON-able."""

from __future__ import annotations

import platform
import statistics
import tempfile
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from _traced_fits import measure_auto, measure_plain, traced_fit

from kerasmemwatch.analysis.steps.live_set import by_category, by_layer, peak_event
from kerasmemwatch.records.owners import AUTOTUNING
from kerasmemwatch.records.timeline import TracedStep

__all__ = ["measure_about", "measure_auto", "measure_plain", "measure_row", "measure_steps"]

_STEP_S, _BLOCK = 0.005, 2


def measure_about(device: str) -> dict[str, Any]:
    """What there is to measure on; an empty ``"name"`` if there is no such device."""
    kind, _, index = device.partition(":")
    found = tf.config.list_physical_devices(kind)
    if int(index or 0) >= len(found):
        return {"name": ""}
    details = tf.config.experimental.get_device_details(found[int(index or 0)]) if kind == "GPU" else {}
    build = tf.sysconfig.get_build_info()
    libraries = {"CUDA": build.get("cuda_version"), "cuDNN": build.get("cudnn_version")}
    return {
        "name": details.get("device_name") or platform.processor() or platform.machine(),
        "versions": {
            "Python": platform.python_version(),
            "TensorFlow": tf.__version__,
            "Keras": keras.__version__,
            **{name: version for name, version in libraries.items() if version and kind == "GPU"},
        },
    }


def measure_row(name: str, mode: str, device: str, epochs: str) -> dict[str, Any]:
    """A fit whose first and some later steps are traced: its row, its peaks, and the story of its first step."""
    zoo, watch, row = traced_fit(name, mode, first_step=True, epochs=int(epochs))
    recording = watch.recording
    # What lies in host memory (seeds, counters of steps) is no part of a GPU's timeline.
    layers = [*zoo.model.weights, *zoo.raw_variables()]
    slots = [variable for optimizer in zoo.optimizers for variable in optimizer.variables]
    row |= {"weights_bytes": _on_device(layers, device), "optimizer_bytes": _on_device(slots, device)}
    samples = recording.samples
    names = [each.name for each in recording.run.devices]
    column = samples["device_peak_bytes"][:, names.index(device)] if device in names else None
    sampled = {} if column is None else dict(zip(samples["step"].tolist(), column.tolist(), strict=True))
    traced = {step.step: step for step in recording.steps}
    untraced = [peak for step, peak in sampled.items() if step > 1 and step not in traced]
    return row | {
        "device": sorted({step.timeline.device for step in recording.steps}),
        "peaks": [[step.step, sampled.get(step.step), _highest_in_use(step)] for step in recording.steps],
        "sums": [_sums(step) for step in recording.steps if step.step > 1],
        "first_step": {
            "peak_bytes": sampled.get(1),
            "autotuning_bytes": _autotuning(traced[1]) if 1 in traced else None,
            "steady_peak_bytes": statistics.median(untraced) if untraced else None,
        },
    }


def measure_steps(pairs: str) -> dict[str, Any]:
    """Whole steps with the watch on and off, in neighbouring blocks of one fit."""
    from _contenders import contenders
    from _fits import calibrated, measure_step_times

    empty, watch = contenders()[:2]
    training = calibrated(_STEP_S, tries=5 if int(pairs) > 100 else 1)
    with tempfile.TemporaryDirectory(prefix="gpu-") as log_dir:
        times = measure_step_times([watch], empty, training, log_dir, pairs=int(pairs), block=_BLOCK)[watch.key]
    return {"step_s": training.step_s, "block": _BLOCK, "pairs": times.step_s}


def _on_device(variables: list[Any], device: str) -> int:
    """Bytes of variables whose memory is a device's, by their own shapes and dtypes."""
    found = 0
    for variable in variables:
        value = tf.convert_to_tensor(variable if isinstance(variable, tf.Variable) else variable.value)
        if value.backing_device.endswith(device):
            found += int(np.prod(variable.shape)) * value.dtype.size
    return found


def _highest_in_use(step: TracedStep) -> int:
    """The allocator's total at its highest, from the events."""
    return max(step.timeline.in_use_before_bytes, int(step.timeline.in_use_bytes.max()))


def _sums(step: TracedStep) -> list[int]:
    """What the package's categories and rows at the peak sum to."""
    event = peak_event(step.timeline)
    rows = by_layer(step.timeline, event)
    return [sum(by_category(step.timeline, event).values()), sum(row.total_bytes or 0 for row in rows)]


def _autotuning(step: TracedStep) -> int:
    """Bytes of workspaces of trials at a step's peak."""
    rows = by_layer(step.timeline, peak_event(step.timeline))
    return sum(row.total_bytes or 0 for row in rows if row.path == AUTOTUNING and not row.class_name)
