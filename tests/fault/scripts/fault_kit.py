"""What the fault tests and their scripts share: a probe whose figures are a function of the step, and a driver."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from kerasmemwatch.probes.base import UNKNOWN
from kerasmemwatch.records.samples import Column
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.storage.run_store import open_store

PEAK_AT = 7  # the batch with the highest peak of all


class ToyProbe:
    """One device; row ``n`` (1-based) holds ``n + 1000``, ``n + 2000`` and ``n + 3000`` bytes, one row far more.

    Args:
        name: The probe's, also in front of its columns if it is not the default.
        faulty: By method, what it does instead: an exception to raise, or a value to return.
        faulty_from: The first batch at which it does.
    """

    def __init__(self, name: str = "toy", faulty: dict[str, Any] | None = None, faulty_from: int = 1) -> None:
        self.name = name
        prefix, width = ("device", 1) if name == "toy" else (name, None)
        self.columns = tuple(Column(f"{prefix}_{what}_bytes", width) for what in ("in_use", "peak", "between_peak"))
        self.slow_columns = (Column(f"{name}_uss_bytes"),)
        self.facts: dict[str, object] = {}
        self.calls = {"open": 0, "batch_begin": 0, "batch_end": 0, "epoch_end": 0, "close": 0}
        self._faulty, self._from = faulty or {}, faulty_from

    def open(self) -> None:
        self._do("open", None)

    def batch_begin(self) -> None:
        self._do("batch_begin", None)

    def batch_end(self) -> Sequence[float]:
        row = self.calls["batch_end"] + 1
        peak = 1e6 if row == PEAK_AT else row + 2000.0
        return self._do("batch_end", (row + 1000.0, peak, row + 3000.0))

    def epoch_end(self) -> Sequence[float]:
        return self._do("epoch_end", (5000.0 + self.calls["batch_end"],))

    def close(self) -> None:
        self._do("close", None)

    def _do(self, method: str, value: Any) -> Any:
        self.calls[method] += 1
        if method in self._faulty and self.calls[method] >= self._from:
            wrong = self._faulty[method]
            if isinstance(wrong, BaseException):
                raise wrong
            return wrong
        return value


def toy_recorder(
    log_dir: Any,
    run_name: str | None = "run",
    *,
    probes: Sequence[Any] | None = None,
    sinks: Sequence[Any] | None = None,
    **options: Any,
) -> Recorder:
    """A recorder as the watch makes it, with a toy probe."""
    place = None if log_dir is None else str(log_dir)
    return Recorder(
        (ToyProbe(),) if probes is None else probes,
        lambda created, resume: open_store(place, run_name, created=created, resume=resume, sinks=sinks),
        **options,
    )


def train(recorder: Recorder, batches: int, after_each: Callable[[int], object] | None = None) -> None:
    """The calls of a fit of one epoch that does not end."""
    recorder.begin_stage("train")
    recorder.begin_epoch(0)
    for batch in range(batches):
        recorder.batch_begin()
        recorder.batch_end(batch)
        if after_each is not None:
            after_each(batch + 1)


def end_fit(recorder: Recorder) -> None:
    """The calls that end a fit."""
    recorder.end_epoch()
    recorder.end_stage()


class Messages(logging.Handler):
    """Collects what the package logs at warning or above."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        logging.getLogger("kerasmemwatch").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def is_toy_row(samples: Any, row: int) -> bool:
    """Whether a row of a recording is, to the byte, what the toy probe gave at that step."""
    step = int(samples["step"][row])
    peak = 1e6 if step == PEAK_AT else step + 2000
    return (
        samples["device_in_use_bytes"][row, 0] == step + 1000
        and samples["device_peak_bytes"][row, 0] == peak
        and samples["device_between_peak_bytes"][row, 0] == step + 3000
        and samples["train_step"][row] == step
    )


__all__ = ["PEAK_AT", "UNKNOWN", "Messages", "ToyProbe", "end_fit", "is_toy_row", "toy_recorder", "train"]
