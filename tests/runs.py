"""Reports made up for tests of what shows them: a small run with two traced steps, one of many layers, an empty one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from timelines import Line, step, timeline

from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.rows import to_samples
from kerasmemwatch.records.run import DeviceInfo, RunInfo
from kerasmemwatch.records.samples import Column, Samples
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.reports.report import Report, make_report
from kerasmemwatch.sampling.probe_set import BASE_COLUMNS

NAN = float("nan")
MIB = 2**20
# Each of them would do something if it were taken for markup, a template, TeX or a formula.
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "%{y}",
    "<b>bold</b> <a href='https://example.com'>link</a>",
    "$x^2$",
    '"><svg onload=alert(3)>',
    "&lt;i&gt;",
    "=1+1",
    "line\nbreak\x1b[31m\u2028",
    "2020-01-01",
    "__proto__",
)
_DEVICE = ("device_peak_bytes", "device_between_peak_bytes", "device_in_use_bytes")


def samples(
    num_rows: int,
    *,
    devices: int = 1,
    peak: Any = None,
    rss: Any = None,
    epochs: Sequence[float] | None = None,
    first_step: int = 1,
) -> Samples:
    """Rows of steps 1, 2, ...: peaks that rise and fall, RSS that rises; ``peak`` and ``rss`` take their place."""
    steps = np.arange(first_step, first_step + num_rows, dtype=float)
    wave = (100 + 10 * np.sin(steps / 5)[:, None] + np.arange(devices)) * MIB
    within = np.round(wave) if peak is None else np.asarray(peak, float).reshape(num_rows, devices)
    layout = (*BASE_COLUMNS, *(Column(name, devices) for name in _DEVICE), Column("host_rss_bytes"))
    table = np.column_stack(
        [
            steps,
            steps,
            np.floor(steps / 20) if epochs is None else epochs,
            np.zeros(num_rows),
            1e9 + steps,
            within,
            np.round(within * 0.5),
            np.round(within * 0.25) + 1000 * steps[:, None],
            500 * MIB + 4096 * steps if rss is None else rss,
        ]
    )
    return to_samples([(layout, table)])


def run_info(name: str = "run", *, devices: int = 1, **changed: Any) -> RunInfo:
    """What describes a run with an allocator that has a limit, on a host that has one."""
    infos = tuple(DeviceInfo(f"GPU:{index}", limit_bytes=200 * MIB) for index in range(devices))
    host = {"limit_bytes": 1024 * MIB, "limit_source": "cgroup"}
    return RunInfo(name, 1_700_000_000.0, devices=infos, host=host, **changed)


def lines(extra: int = 0) -> list[Line]:
    """A small step: two layers with weights, activations and gradients, a loss, and so much kept from before."""
    return [
        (100 * 1024, -1, 12, "encoder/dense", "weights", "between", ""),
        (200 * 1024, -1, 12, "encoder/dense", "optimizer", "between", ""),
        (50 * 1024, -1, 12, "head", "weights", "between", ""),
        (8192 + extra, -1, 12, "eager tensors", "other", "between", ""),
        (64 * 1024, 0, 12, "input pipeline", "inputs", "input", "GatherV2"),
        (400 * 1024, 1, 9, "encoder/dense", "activations", "forward", "model/encoder/dense/MatMul"),
        (30 * 1024, 2, 5, "head", "temporaries", "forward", "model/head/BiasAdd"),
        (300 * 1024, 3, 8, "head", "activations", "forward", "model/head/Relu"),
        (16, 4, 7, "loss", "other", "forward", "model/loss/Mean"),
        (50 * 1024, 6, 11, "head", "gradients", "backward", "gradient_tape/model/head/MatMul"),
        (100 * 1024, 8, 11, "encoder/dense", "gradients", "backward", "gradient_tape/model/encoder/dense/MatMul"),
        (100 * 1024, 10, 11, "optimizer", "temporaries", "update", "adam/mul"),
    ]


def traced_steps(*, with_inference: bool = True) -> tuple[TracedStep, ...]:
    """Two training steps, the second of which begins with 4 KiB more, and an evaluation's."""
    found = [step(timeline(lines(), 12, device="GPU:0"), 2), step(timeline(lines(4096), 12, device="GPU:0"), 10)]
    if with_inference:
        inference = [line for line in lines() if line[5] in ("between", "input", "forward")]
        found.append(step(timeline(inference, 12, device="GPU:0"), 30, stage="test", epoch=None))
    return tuple(found)


def host_lines(extra: int = 0) -> list[Line]:
    """What the small step holds on the host meanwhile: a batch, and the variables of an embedding."""
    return [
        (20 * 1024 + extra, -1, 4, "embedding", "weights", "between", ""),
        (3000, 0, 2, "input pipeline", "inputs", "input", "GatherV2"),
        (1000, 1, 3, "unattributed", "unattributed", "forward", ""),
    ]


def two_device_steps() -> tuple[TracedStep, ...]:
    """The two training steps, with what they held on the host, and pinned memory in the second one only."""
    first, second = traced_steps(with_inference=False)
    pinned = timeline([(2048, 0, 1, "input pipeline", "inputs", "input", "")], 2, device="GPU host (pinned)")
    return (
        replace(first, others=(timeline(host_lines(), 4),)),
        replace(second, others=(timeline(host_lines(4096), 4), pinned)),
    )


def small_report(name: str = "run", rows: int = 60, **changed: Any) -> Report:
    """A report of everything."""
    return make_report(run_info(name), samples(rows), (), changed.pop("steps", traced_steps()), **changed)


def empty_report() -> Report:
    """A report of nothing."""
    return make_report(RunInfo("", 0.0), to_samples([]))


def untraced_report() -> Report:
    """Samples, and the model's variables, one of them unknown."""
    layers = (
        LayerMemory("dense", "Dense", weights_bytes=4096, optimizer_bytes=8192, other_bytes=0),
        LayerMemory("lazy", "Dense"),
    )
    return make_report(run_info(), samples(30), layers)


def partial_report() -> Report:
    """Samples of an allocator that does not count every allocation, and no traced step."""
    device = DeviceInfo("CPU:0", "partial", 262_144, remedy="Do this.")
    return make_report(replace(run_info(), devices=(device,)), samples(30))


def wide_report(num_layers: int, *, names: Sequence[str] = ()) -> Report:
    """A model of so many layers, three to a block; the first ones are called ``names``."""
    paths = [*names, *(f"encoder/block_{index // 3}/layer_{index}" for index in range(num_layers - len(names)))]
    held = []
    for index, path in enumerate(paths):
        sizes = (4096 * (index % 17 + 1), 8192 * (index % 5 + 1))
        held.append((sizes[0], -1, 4 * num_layers, path, "weights", "between", ""))
        held.append((2 * sizes[0], -1, 4 * num_layers, path, "optimizer", "between", ""))
        held.append((sizes[1], index, 2 * num_layers - index, path, "activations", "forward", f"model/{path}/MatMul"))
        birth = 2 * num_layers - index
        held.append((sizes[0], birth, 4 * num_layers - 1, path, "gradients", "backward", f"tape/{path}/MatMul"))
    made = timeline(held, 4 * num_layers, device="GPU:0")
    return make_report(run_info(names[0] if names else "wide"), samples(40), (), [step(made, 2), step(made, 3)])


def hostile_report() -> Report:
    """Everything that a user names is hostile."""
    report = wide_report(len(HOSTILE) + 3, names=HOSTILE)
    devices = (DeviceInfo(HOSTILE[0], limit_bytes=120 * MIB), DeviceInfo(HOSTILE[2]))
    run = replace(run_info(HOSTILE[1]), devices=devices, notes=HOSTILE, tags=HOSTILE)
    # As many rows as a verdict on growth takes, whose explanations have the devices' whole names.
    return make_report(run, samples(120, devices=2), (), report.steps)
