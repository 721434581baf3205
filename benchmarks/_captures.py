"""Captured steps of a GPU, read from a folder into what the analysis takes: no GPU is needed.

A step is a pair of files. ``NAME.xplane.pb.xz`` is the profiler's ``XSpace``. ``NAME.json.xz`` is what else the watch
knew: the fields of ``CapturedStep`` and ``HookNotes`` with operations by name, the true bytes of weights and
optimizer, and the memory that was sampled at each step.
"""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasmemwatch.attribution.captured_step import CapturedStep
from kerasmemwatch.attribution.function_constants import Kept
from kerasmemwatch.attribution.hook_notes import HookNotes
from kerasmemwatch.attribution.live.batch_spec import BatchPart
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer, Sighting
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.attribution.owners.weight_gradients import GradientBuffer
from kerasmemwatch.attribution.step_attribution import attributed
from kerasmemwatch.attribution.xla.program_runs import Programs
from kerasmemwatch.records.owners import Frame
from kerasmemwatch.records.rows import to_samples
from kerasmemwatch.records.run import DeviceInfo, RunInfo
from kerasmemwatch.records.samples import Column
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.reports.report import Report, make_report
from kerasmemwatch.sampling.probe_set import BASE_COLUMNS

__all__ = ["CaptureError", "GpuCapture", "load_capture", "names_in"]

_NOTES, _SPACE = ".json.xz", ".xplane.pb.xz"
_SEVERAL = re.compile(r"-(\d+)-steps$")
_HOST = "CPU:0"


class CaptureError(ValueError):
    """A folder or file that holds no captured step."""


@dataclass(frozen=True)
class GpuCapture:
    """A captured step, and what is known of it by other means.

    Attributes:
        name: Of its files.
        captured: What the tracer kept.
        noted: What the hooks noted.
        kept: What functions' first calls left.
        weights_bytes: Weights, by their shapes and dtypes.
        optimizer_bytes: Optimizer variables likewise.
        sampled: Bytes of the GPU's allocator in each sample of the fit, by column of the samples; ``None`` if unknown.
    """

    name: str
    captured: CapturedStep
    noted: HookNotes
    kept: Sequence[Kept]
    weights_bytes: int
    optimizer_bytes: int
    sampled: Mapping[str, Sequence[float | None]]

    @property
    def per_sample(self) -> int:
        """How many steps a sample covers."""
        several = _SEVERAL.search(self.name)
        return int(several[1]) if several else 1

    @property
    def sampled_peak_bytes(self) -> float | None:
        """The allocator's peak within the step, as sampled; ``None`` if unknown."""
        peaks, index = self.sampled.get("device_peak_bytes", ()), -(-self.captured.step // self.per_sample) - 1
        return peaks[index] if 0 <= index < len(peaks) else None

    def report(self, step: TracedStep) -> Report:
        """The report of the fit, with no more than this step traced.

        Args:
            step: It, as analysed.
        """
        count = max(map(len, self.sampled.values()), default=0)
        at = self.per_sample * np.arange(1.0, count + 1)
        fixed = {"step": at, "train_step": at, "epoch": np.zeros(count), "stage": np.zeros(count), "time_s": at}
        known = {name: np.array(values, float) for name, values in self.sampled.items() if len(values) == count}
        columns = (*BASE_COLUMNS, *(Column(name, 1) for name in known))
        table = np.column_stack([*(fixed[column.name] for column in BASE_COLUMNS), *known.values()])
        run = RunInfo(self.name, self.captured.begun_ns / 1e9, devices=(DeviceInfo("GPU:0"),))
        return make_report(run, to_samples([(columns, table)]), steps=[step])

    def analysed(self) -> TracedStep | None:
        """Attribute it, as if no step had been analysed before.

        Raises:
            CaptureError: If that fails, as of a file that is whole but says what cannot be.
        """
        try:
            return attributed(self.captured, self.noted, Programs(), self.kept)
        except Exception as error:
            what = f"{self.name} ({type(error).__name__}: {error})"
            raise CaptureError(f"Expected a step that can be analysed. Received: {what}.") from error


def names_in(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the captured steps in a folder, and of the files in it that belong to none.

    Raises:
        CaptureError: If it is no folder, or no step is in it.
    """
    if not folder.is_dir():
        raise CaptureError(f"Expected a folder of captured steps. Received: {str(folder)!r}, which is none.")
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    stems = {name.removesuffix(_NOTES) for name in files if name.endswith(_NOTES)}
    names = sorted(stems & {name.removesuffix(_SPACE) for name in files if name.endswith(_SPACE)})
    if not names:
        raise CaptureError(
            f"Expected pairs of NAME{_NOTES} and NAME{_SPACE}. Received: {str(folder)!r}, "
            f"with {len(files)} files and no pair."
        )
    pairs = {name + end for name in names for end in (_NOTES, _SPACE)}
    return names, [name for name in files if name not in pairs]


def load_capture(folder: Path, name: str) -> GpuCapture:
    """Read a captured step.

    Raises:
        CaptureError: If a file is damaged or lacks something.
    """
    space = _unpacked(folder / (name + _SPACE))
    _check_space(folder / (name + _SPACE), space)
    path = folder / (name + _NOTES)
    try:
        return _capture(name, json.loads(_unpacked(path)), space)
    except CaptureError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, LookupError) as error:
        what = f"{str(path)!r} ({type(error).__name__}: {error})"
        raise CaptureError(f"Expected what the watch knew of a step, as JSON. Received: {what}.") from error


def _unpacked(path: Path) -> bytes:
    try:
        return lzma.decompress(path.read_bytes())
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise CaptureError(f"Expected a whole file of xz. Received: {str(path)!r} ({error}).") from error


def _check_space(path: Path, space: bytes) -> None:
    from google.protobuf.message import DecodeError
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    try:
        planes = xplane_pb2.XSpace.FromString(space).planes
    except DecodeError as error:
        raise CaptureError(f"Expected a profiler's XSpace. Received: {str(path)!r} ({error}).") from error
    if not planes:
        raise CaptureError(f"Expected a profiler's XSpace with planes. Received: {str(path)!r}, which has none.")


def _capture(name: str, notes: dict[str, Any], space: bytes) -> GpuCapture:
    step, stage = int(notes["step"]), notes.get("stage", "train")
    captured = CapturedStep(
        stage=stage,
        mode=notes["mode"],
        reason="captured on a GPU",
        batch=[BatchPart(int(part["bytes"]), bool(part["per_row"])) for part in notes.get("batch", ())],
        layers=dict(notes["layers"]),
        optimizers=tuple(notes.get("optimizers", ())),
        space=space,
        begun_ns=int(notes["begun_ns"]),
        log=[(int(time), _frame(frame)) for time, frame in notes.get("log", ())],
        known=[_buffer(buffer) for buffer in notes["known"]],
        step=step,
        calls=[(int(begun), int(ended)) for begun, ended in notes.get("calls", ())],
        arguments=set(map(int, notes.get("arguments", ()))),
        held={owner: int(size) for owner, size in notes.get("held", {}).items()},
        before={int(key): int(address) for key, address in notes.get("before", {}).items()},
        sightings=[Sighting(*map(int, sighting)) for sighting in notes.get("sightings", ())],
    )
    return GpuCapture(
        name=name,
        captured=captured,
        noted=HookNotes(
            owners=OpOwners({op: [_frame(frame) for frame in made_by] for op, made_by in notes["op_owners"].items()}),
            assigned={op: _buffer(buffer) for op, buffer in notes.get("assigned", {}).items()},
            gradients=[_gradient(gradient) for gradient in notes.get("gradients", ())],
            outputs=_outputs(notes.get("outputs", {}), stage),
        ),
        kept=[_kept(each, captured.known) for each in notes.get("kept", ())],
        weights_bytes=int(notes["weights_bytes"]),
        optimizer_bytes=int(notes["optimizer_bytes"]),
        sampled={
            f"device_{name}_bytes": [each[0] if each else None for each in notes.get(f"{name}_bytes_by_step", ())]
            for name in ("peak", "between_peak", "in_use")
        },
    )


def _frame(frame: dict[str, str]) -> Frame:
    return Frame(frame["owner"], frame["class_name"], frame["phase"])


def _buffer(buffer: dict[str, Any]) -> KnownBuffer:
    numbers = {name: int(buffer.get(name) or 0) for name in ("bytes", "address", "key", "before")}
    return KnownBuffer(**{**buffer, **numbers, "device": buffer.get("device") or _HOST})


def _kept(each: dict[str, Any], known: Iterable[KnownBuffer]) -> Kept:
    """What a function keeps lies where the buffer that is known nearest to it does, if the file doesn't say."""
    address = int(each["address"])
    placed = (buffer for buffer in known if buffer.address)
    nearest = min(placed, key=lambda buffer: abs(buffer.address - address), default=None)
    device = each.get("device") or (nearest.device if nearest else _HOST)
    return Kept(address, int(each["bytes"]), each["op"], device)


def _gradient(gradient: dict[str, Any]) -> GradientBuffer:
    return GradientBuffer(**{**gradient, "ops": tuple(gradient.get("ops", ()))})


def _outputs(outputs: dict[str, Any], stage: str) -> dict[str, Iterable[Any]]:
    """By layer path, from ``"stage|path"``."""
    return {
        key.partition("|")[2]: [(tuple(shape), int(item)) for shape, item in specs]
        for key, specs in outputs.items()
        if key.partition("|")[0] == stage
    }
