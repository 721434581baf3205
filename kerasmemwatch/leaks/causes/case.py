"""All that is known of one suspicion, as values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from kerasmemwatch.leaks.evidence.collector import Collected
from kerasmemwatch.leaks.evidence.look import Look
from kerasmemwatch.leaks.evidence.makings import Made
from kerasmemwatch.leaks.evidence.models import Models
from kerasmemwatch.leaks.evidence.places import Place
from kerasmemwatch.probes.children import Child
from kerasmemwatch.records.growth import Growth, LeakFinding
from kerasmemwatch.records.samples import Samples

__all__ = ["Case", "Rises", "at", "rises_of"]


@dataclass(frozen=True)
class Rises:
    """How much counters rose over the rows that show the growth; NaN where unknown.

    Attributes:
        rows: Number of rows.
        steps: Steps of any stage.
        train_steps: Steps of training.
        epochs: Epochs.
        calls: Fits, evaluates and predicts.
        models: Models that trained.
        functions: Functions that TensorFlow keeps.
        gradients: Entries of its registry of gradients.
        py_functions: Python functions that it keeps.
        collections: Full collections of Python's.
        threads: Threads.
    """

    rows: int = 0
    steps: float = math.nan
    train_steps: float = math.nan
    epochs: float = math.nan
    calls: float = math.nan
    models: float = math.nan
    functions: float = math.nan
    gradients: float = math.nan
    py_functions: float = math.nan
    collections: float = math.nan
    threads: float = math.nan

    def last(self, steps: int) -> Rises:
        """What rose in the last of the steps, if all rise evenly."""
        share = min(1.0, steps / self.steps) if self.steps > 0 else math.nan
        names = [each.name for each in fields(self) if each.name not in ("rows", "collections")]
        return replace(self, **{name: getattr(self, name) * share for name in names})


# What is kept takes at least this share of what RSS gains.
_RSS_SHARE = 0.25
# What has grown with memory is at most so many times as large as memory's growth since the first step.
_MOST_OF_GROWTH = 2.0
_FEWEST_CALLS, _CALLS_TO_SEE, _FEWEST_EPOCHS = 4, 10, 5
_COLUMNS = {
    "steps": "step",
    "train_steps": "train_step",
    "calls": "call",
    "models": "model",
    "functions": "live_functions",
    "gradients": "registered_gradients",
    "py_functions": "py_functions",
    "collections": "gc_full_collections",
    "threads": "threads",
}


def rises_of(samples: Samples, since_step: int | None) -> Rises:
    """Compare the first row of the growth with the newest."""
    chosen = np.flatnonzero(samples["step"] >= (since_step or 0))
    if len(chosen) < 2:
        return Rises()
    found = {}
    for field_name, column in _COLUMNS.items():
        values = samples.get(column)
        own = np.empty(0) if values is None or values.ndim != 1 else values[chosen].astype(float)
        known = own[~np.isnan(own)]
        found[field_name] = float(known[-1] - known[0]) if len(known) > 1 else math.nan
    epochs = samples["epoch"][chosen].astype(float)
    changes = np.flatnonzero((epochs[1:] != epochs[:-1]) & ~np.isnan(epochs[1:]))
    return Rises(rows=len(chosen), epochs=float(len(changes)), **found)


@dataclass(frozen=True)
class Case:
    """A suspicion and what was found.

    Attributes:
        growth: Verdicts that are suspicious, the one to explain first.
        rises: What rose meanwhile.
        rises_then: The same when the newest look was taken, or the models were followed.
        looks: The looks so far, oldest first; at most two.
        models: Models that lived though there was no time for a look; ``None`` if there was, or none were asked for.
        collected: What one full collection gave back; ``None`` if none was run.
        grown_then: By how much memory had grown as it was run; ``None`` if that is now.
        collector_on: Whether Python's collector runs by itself.
        off_at: The line of the user's that switched it off, if found.
        made: What was made that TensorFlow keeps for ever.
        children: The child processes at the first and the newest suspicion, if it is they that grow.
        are_devices_steady: Whether every device counts each allocation, and is steady: tensors don't grow.
    """

    growth: tuple[Growth, ...]
    rises: Rises = Rises()
    rises_then: Rises = Rises()
    looks: tuple[Look, ...] = ()
    models: Models | None = None
    collected: Collected | None = None
    grown_then: float | None = None
    collector_on: bool = True
    off_at: Place | None = None
    made: Made = field(default_factory=Made)
    children: tuple[tuple[Child, ...], ...] = ()
    are_devices_steady: bool = False

    @property
    def main(self) -> Growth:
        """The growth to explain."""
        return self.growth[0]

    @property
    def is_told(self) -> bool:
        """Whether the growth is told without a cause; else only one shows that it is some."""
        return self.main.verdict != "too short to tell"

    @property
    def grown_bytes(self) -> float:
        """By how much memory has grown over the rows that show it."""
        rate, steps = self.main.bytes_per_step, self.rises.train_steps or self.rises.steps
        return math.nan if rate is None else rate * steps

    def grown_in(self, steps: int) -> float:
        """By how much it has grown in the last steps of any stage, if evenly; NaN if unknown."""
        return self.grown_bytes * steps / self.rises.steps if self.rises.steps > 0 else math.nan

    @property
    def num_additions(self) -> int:
        """How often something may have been added: with each row or, if too little is told, with each epoch."""
        rows, epochs = max(1, self.rises.rows), self.rises.epochs
        return min(rows, max(_FEWEST_EPOCHS, int(epochs))) if epochs > 0 and not self.is_told else rows

    @property
    def num_units(self) -> float:
        """How often the unit of the growth came while memory grew, when the newest look was taken; NaN if unknown."""
        then, unit = self.rises_then, self.main.unit
        known = {"step": then.train_steps or then.steps, "epoch": then.epochs, "model": then.models}
        return known.get(unit, then.calls)

    @property
    def is_host(self) -> bool:
        """Whether it is the process's memory, not a device's in use."""
        return self.main.series.startswith("host")

    @property
    def has_enough_calls(self) -> bool:
        """Whether what piles up with each call can be seen, where each makes memory grow: from eight on."""
        return self.main.unit not in ("fit", "evaluate", "predict") or self.rises.calls >= _CALLS_TO_SEE

    @property
    def regularly(self) -> str:
        """When code that frees memory may run."""
        if self.main.unit in ("fit", "evaluate", "predict"):
            return f"after each {self.main.unit}"
        return "at each epoch's end" if self.rises.epochs > 0 else "every few hundred steps"

    @property
    def least_of_main(self) -> float:
        """The slowest growth a step of any series that may be the same as the one to explain; bytes.

        RSS rises by up to four times as much as the tensors that are kept: each new value is made beside the old one.
        """
        main = self.main.bytes_per_step or 0.0
        rates = (each.bytes_per_step or 0.0 for each in self.growth)
        return min(rate for rate in rates if rate >= _RSS_SHARE * main)

    def may_be_growth(self, held_bytes: float, least_share: float) -> bool:
        """Whether what the newest look found may have been added while memory grew: about as much, and no more.

        Args:
            held_bytes: What is held in all.
            least_share: The least share of the growth that it explains.
        """
        then, look = self.rises_then, self.look
        steps = then.train_steps or then.steps
        grown = self.least_of_main * steps
        # It may have grown before the rows that show it, too. What is far larger was there from the start.
        most = 0.0 if look is None else _MOST_OF_GROWTH * (self.main.bytes_per_step or 0.0) * max(steps, look.step)
        return least_share * grown <= held_bytes <= most

    def in_unit(self, bytes_per_step: float | None) -> dict[str, Any]:
        """A rate in the unit of the growth: the fields ``unit`` and ``rate`` of a finding."""
        main = self.main
        if bytes_per_step is None or not main.rate or not main.bytes_per_step:
            return {"unit": "step", "rate": bytes_per_step}
        return {"unit": main.unit, "rate": bytes_per_step * main.rate / main.bytes_per_step}

    def units(self, steps: int) -> int:
        """How many calls there were in a number of steps, or the steps if there are few calls."""
        rises = self.rises
        is_by_call = rises.calls >= _FEWEST_CALLS and rises.steps > 0
        return int(steps * rises.calls / rises.steps) if is_by_call else steps

    @property
    def look(self) -> Look | None:
        """The newest look."""
        return self.looks[-1] if self.looks else None

    def finding(self, cause: str, evidence: str, fix: str, confidence: float, **more: Any) -> LeakFinding:
        """A cause of the growth to explain, with its rate and unit where ``more`` names no others."""
        main = self.main
        known: dict[str, Any] = {"bytes_per_step": main.bytes_per_step, "since_step": main.since_step, "where": ""}
        known |= {"unit": main.unit, "rate": main.rate, **more}
        return LeakFinding(cause=cause, evidence=evidence, fix=fix, confidence=confidence, **known)

    def change(self, value: Callable[[Look], float]) -> float | None:
        """By how much something changed between two looks; ``None`` if there was one only."""
        return value(self.looks[-1]) - value(self.looks[0]) if len(self.looks) > 1 else None


def at(place: Place | None, names: str = "") -> str:
    """A place in words: ``train.py:42, losses.append(loss)``."""
    if place is None:
        return names
    source = f", {place.source}" if place.source else ""
    return f"{place.file}:{place.line}{source}"
