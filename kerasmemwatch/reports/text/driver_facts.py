"""What a GPU's driver counts, compared with this process's tensors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.analysis.findings import Findings
from kerasmemwatch.units import format_bytes

__all__ = ["driver_facts"]


def driver_facts(report: Findings) -> Iterator[tuple[str, str, str]]:
    """For each GPU, what all processes use and what this one holds: name, figure and comment."""
    drivers = report.run.drivers
    for index, driver in enumerate(drivers):
        used, total, own = (_column(report, f"nvml_{name}_bytes", index) for name in ("used", "total", "process"))
        comment = f"used of {format_bytes(_newest(total))}, by all processes"
        yield f"{driver.get('name', 'GPU')}", format_bytes(_newest(used)), comment
        comment, held = "held by this process, says the driver", _newest(own)
        # The allocator's figure from the same moment; later it may hold more than the driver's last reading covers.
        in_use = _newest(_in_use(report, index, len(drivers)), at=~np.isnan(own))
        if held is not None and in_use is not None and in_use <= held:
            comment += f": {format_bytes(in_use)} in use by tensors, the rest is the allocator's pool and CUDA itself"
        yield "  this process", format_bytes(held), comment


def _in_use(report: Findings, index: int, count: int) -> NDArray[np.float64]:
    """Bytes in use on one of the driver's GPUs in each row; NaN if it is not known which devices are on it."""
    gpus = [number for number, device in enumerate(report.run.devices) if device.name.startswith("GPU")]
    # Several workers' devices are not in the order of their GPUs. One GPU may be split into several devices.
    chosen = [] if report.workers else gpus if count == 1 else gpus[index : index + 1] if len(gpus) == count else []
    columns = [_column(report, "device_in_use_bytes", number) for number in chosen]
    return np.sum(columns, axis=0) if columns else np.full(report.samples.num_samples, np.nan)


def _column(report: Findings, name: str, index: int) -> NDArray[np.float64]:
    values = report.samples.get(name)
    if values is None or index >= values.shape[1]:
        return np.full(report.samples.num_samples, np.nan)
    found: NDArray[np.float64] = values[:, index].astype(float)
    return found


def _newest(values: NDArray[np.float64], at: NDArray[np.bool_] | None = None) -> float | None:
    """The last known value, or the value in the last of the rows ``at``."""
    rows = np.flatnonzero(~np.isnan(values) if at is None else at)
    return float(values[rows[-1]]) if len(rows) and not np.isnan(values[rows[-1]]) else None
