"""What a recording says: pure functions from samples and traced steps to findings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self, TypeVar

import numpy as np

from kerasmemwatch.analysis.endings import find_ending
from kerasmemwatch.analysis.growth_words import with_calls
from kerasmemwatch.analysis.leak_words import confirmed, with_remedy, without_guess
from kerasmemwatch.analysis.steps.layer_table import layer_table
from kerasmemwatch.analysis.steps.live_set import by_category, by_layer, coverage, highest_step, peak_event, traced_peak
from kerasmemwatch.analysis.steps.shown_step import shown_step
from kerasmemwatch.analysis.steps.step_devices import device_names, headed, steps_on
from kerasmemwatch.leaks.verdicts.find import HEAP, find_growth, worker_name
from kerasmemwatch.records.ending import Ending
from kerasmemwatch.records.growth import WAITS, Growth, LeakFinding
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.peaks import Peak, TracedPeak, WorkerMemory
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.records.samples import Samples
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.units import format_bytes

__all__ = ["ENOUGH_COVERAGE", "Findings", "find_peak", "find_workers", "make_findings"]

_SUSPICIOUS_SHARE, _FEWEST_SAMPLES = 0.9, 10
# Below this coverage, a note says how much of the traced peak is unattributed.
ENOUGH_COVERAGE = 0.99


@dataclass(frozen=True, eq=False)
class Findings:
    """What a recording says, as values from which text, HTML, figures and the tab are made.

    Attributes:
        run: The run's description.
        samples: The rows, by column.
        peak: The run's highest moment.
        layers: Each layer over the whole traced step that ``traced`` describes, from ``layer_table``. Without a trace,
            the model's variables by layer; values that need a trace are ``None``.
        growth: For each series at step ends, whether it grows; devices first.
        coverage: Share of ``peak.requested_bytes`` with a known owner and category; ``None`` without a trace.
        leaks: Causes of growth, the surest first.
        notes: What could not be measured, and what went wrong.
        traced: The moment that ``peak.by_category`` and ``peak.by_layer`` describe; ``None`` without a trace. Its
            device is the one that the peak names, if that allocated anything in a traced step.
        traced_steps: The numbers of this run's traced steps.
        workers: The highest figures of each worker, if several trained together; empty for an ordinary run.
        steps: The traced steps and gaps themselves, for figures, including those of an equivalent fit.
        inventory: The model's variables by layer, on any device.
        endings: How processes ended that did not end properly, or are still running.
        device: The device that was asked for; ``None`` if none was.
        everywhere: The rows of ``layers`` before a device was asked for.
    """

    run: RunInfo
    samples: Samples
    peak: Peak
    layers: tuple[LayerMemory, ...] = ()
    growth: tuple[Growth, ...] = ()
    coverage: float | None = None
    leaks: tuple[LeakFinding, ...] = ()
    notes: tuple[str, ...] = ()
    traced: TracedPeak | None = None
    traced_steps: tuple[int, ...] = ()
    workers: tuple[WorkerMemory, ...] = ()
    steps: tuple[TracedStep, ...] = field(default=(), repr=False)
    inventory: tuple[LayerMemory, ...] = field(default=(), repr=False)
    endings: tuple[Ending, ...] = ()
    device: str | None = None
    everywhere: tuple[LayerMemory, ...] = field(default=(), repr=False)

    @property
    def weights_bytes(self) -> int | None:
        """All layers' variables; ``None`` if no model was seen or a size is unknown."""
        return _total(layer.weights_bytes for layer in self._everywhere) if self._everywhere else None

    @property
    def optimizer_bytes(self) -> int | None:
        """All optimizer variables; ``None`` if no model was seen or a size is unknown."""
        return _total(layer.optimizer_bytes for layer in self._everywhere) if self._everywhere else None

    @property
    def _everywhere(self) -> tuple[LayerMemory, ...]:
        # One device's rows lack the variables on others.
        return self.layers if self.device is None else self.everywhere

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices in traced steps, each a choice for ``on_device``; the one shown comes first."""
        return device_names(self.steps)

    def on_device(self, device: str) -> Self:
        """The same findings for another device: changes ``layers``, ``traced`` and what ``peak`` has by layer.

        Values from the samples stay: ``peak.bytes`` is the run's peak, and ``peak.device`` is where it occurred.

        Args:
            device: One of ``devices``.

        Raises:
            InvalidArgumentError: If no traced step allocated anything on it.

        Example:
            >>> for device in report.devices:                          # doctest: +SKIP
            ...     print(report.on_device(device).peak.by_category)
        """
        steps = steps_on(self.steps, device)
        if self.device is None and self.traced is not None and self.traced.device == device:
            return self
        notes = (*self.run.notes, *_doubts(self.run, self.samples))
        peak = find_peak(self.run, self.samples)
        bare = replace(self, peak=peak, notes=notes, device=device, everywhere=self._everywhere)
        return _explained(bare, steps, highest_step(steps))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the samples and the steps' allocations as JSON-able values; ``None`` where unknown."""
        raw = {
            "run": asdict(self.run),
            "num_samples": self.samples.num_samples,
            "peak": asdict(self.peak),
            "traced": asdict(self.traced) if self.traced else None,
            "traced_steps": list(self.traced_steps),
            "devices": list(self.devices),
            "workers": [asdict(worker) for worker in self.workers],
            "layers": [asdict(layer) for layer in self.layers],
            "growth": [asdict(growth) | {"low": growth.low, "high": growth.high} for growth in self.growth],
            "weights_bytes": self.weights_bytes,
            "optimizer_bytes": self.optimizer_bytes,
            "coverage": self.coverage,
            "endings": [asdict(ending) for ending in self.endings],
            "leaks": [asdict(leak) for leak in self.leaks],
            "notes": list(self.notes),
        }
        return {key: _plain(value) for key, value in raw.items()}


F = TypeVar("F", bound=Findings)


def make_findings(
    kind: type[F],
    run: RunInfo,
    samples: Samples,
    layers: tuple[LayerMemory, ...] = (),
    steps: Sequence[TracedStep] = (),
    workers: Sequence[tuple[RunInfo, Samples]] = (),
) -> F:
    """Derive the findings of a recording; ``workers`` are those whose samples are combined, if several."""
    each = tuple(find_workers(workers))
    growth = find_growth(run, samples, workers)
    peak, notes = find_peak(run, samples), (*run.notes, *_doubts(run, samples))
    held = tuple(layers)
    ended = (find_ending(*one) for one in workers or [(run, samples)])
    endings = tuple(ending for ending in ended if ending is not None)
    found = kind(run, samples, peak, held, growth, notes=notes, workers=each, inventory=held, endings=endings)
    growth = confirmed(with_calls(growth, run.call_growth), run.leaks)
    growth = without_guess(_without_hints(growth), run.leaks)
    found = replace(found, leaks=run.leaks, growth=with_remedy(growth, run.leaks))
    steps = headed(steps, peak.device)
    return _explained(found, steps, shown_step(peak, [s for s in steps if s.timeline.device == peak.device] or steps))


def _without_hints(growth: Sequence[Growth]) -> tuple[Growth, ...]:
    """The heap is told only if it grows, or if garbage comes and goes in it that no other series shows."""
    others = [each for each in growth if not each.series.startswith(HEAP)]
    is_shown = any(each.is_growing or each.verdict == WAITS for each in others)
    told = {"growing"} if is_shown else {"growing", WAITS}
    return tuple(each for each in growth if each in others or each.verdict in told)


def _explained(found: F, steps: tuple[TracedStep, ...], step: TracedStep | None) -> F:
    """Add what was alive at a traced step's peak to findings from the samples."""
    if step is None:
        return found
    event, moment = peak_event(step.timeline), traced_peak(step)
    peak = found.peak
    # Another device's moment says nothing about this one's.
    phase = moment.phase if peak.ended and step.after is None and found.device in (None, peak.device) else None
    covered = coverage(step.timeline, event)
    return replace(
        found,
        peak=replace(
            peak,
            phase=peak.phase or phase,
            requested_bytes=moment.requested_bytes,
            by_category=by_category(step.timeline, event),
            by_layer=by_layer(step.timeline, event),
            op=moment.op,
        ),
        layers=layer_table(step, found.inventory, device=found.device),
        coverage=covered,
        notes=(*_uncovered(covered, moment), *found.notes, *step.notes),
        traced=moment,
        # Several workers may trace the same step.
        traced_steps=tuple(dict.fromkeys(one.step for one in steps if one.measured_in is None and one.after is None)),
        steps=steps,
    )


def find_workers(workers: Sequence[tuple[RunInfo, Samples]]) -> list[WorkerMemory]:
    """The highest figures of each worker, and whether its series ends before the others'."""
    last_steps = [int(samples["step"][-1]) if samples.num_samples else None for _, samples in workers]
    last = max((step for step in last_steps if step is not None), default=0)
    found = []
    for (run, samples), last_step in zip(workers, last_steps, strict=True):
        peak, rss = find_peak(run, samples), samples.highest("host_rss_bytes")
        # A killed worker lacks a row for the steps since its last one.
        unsampled = run.configuration.get("sample_every", 1) - 1
        found.append(
            WorkerMemory(
                worker_name(run),
                run.name,
                peak.bytes,
                peak.step,
                peak.device,
                None if rss is None else int(rss),
                last_step,
                (last_step or 0) + unsampled < last,
            )
        )
    return found


def find_peak(run: RunInfo, samples: Samples) -> Peak:
    """The highest of all windows, within and between batches; the maximum over devices, never a sum."""
    within, between = samples.get("device_peak_bytes"), samples.get("device_between_peak_bytes")
    if within is None or between is None or not within.size or np.isnan(np.fmax(within, between)).all():
        return Peak()
    highest = np.fmax(within, between)
    row, column = np.unravel_index(np.nanargmax(highest), highest.shape)
    exact_windows = run.configuration.get("reset_peak", True) and run.configuration.get("sample_every", 1) == 1
    # False if the window between is unknown, like the one before the first sample.
    is_between = highest[row, column] == between[row, column] != within[row, column]
    epoch = samples["epoch"][row]
    return Peak(
        bytes=int(highest[row, column]),
        step=int(samples["step"][row]),
        device=run.devices[column].name if column < len(run.devices) else None,
        stage=str(samples["stage"][row]),
        phase="between" if is_between and exact_windows else None,
        epoch=None if math.isnan(epoch) else int(epoch),
        ended="ended" not in samples or bool(samples["ended"][row] != 0),
    )


def _doubts(run: RunInfo, samples: Samples) -> list[str]:
    """Reasons in the figures themselves to doubt the measurement."""
    peak, in_use = samples.get("device_peak_bytes"), samples.get("device_in_use_bytes")
    if peak is None or in_use is None or not peak.size or len(peak) < _FEWEST_SAMPLES:
        return []
    # A partial count may miss all of a small model's allocations.
    exact = [index for index, device in enumerate(run.devices) if device.counting == "exact"]
    if not exact:
        return []
    peak, in_use = peak[:, exact], in_use[:, exact]
    # Not every row: an input pipeline's thread may allocate between another reader's reset and our reading.
    if np.mean(peak == in_use) < _SUSPICIOUS_SHARE:
        return []
    return [
        "Nearly every batch's peak equals the bytes in use at its end, as if somebody else reset the allocator's peak "
        "in between. Put MemoryWatch before other callbacks, or do not call reset_memory_stats."
    ]


def _uncovered(covered: float | None, moment: TracedPeak) -> list[str]:
    if covered is None or covered >= ENOUGH_COVERAGE:
        return []
    unknown = format_bytes(round((1 - covered) * moment.requested_bytes))
    return [f"{unknown} ({1 - covered:.1%}) of what was alive at the traced peak has no known layer or category."]


def _total(values: Any) -> int | None:
    known = list(values)
    return None if any(value is None for value in known) else sum(known)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
