"""Growth of memory over a run, and its causes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["UNITS", "VERDICTS", "WAITS", "Growth", "LeakFinding", "OwnRise", "TraceLink", "Unit", "Verdict"]

Verdict = Literal["growing", "waits for the collector", "filling", "settling", "steady", "too short to tell"]
Unit = Literal["step", "epoch", "fit", "evaluate", "predict", "model"]
VERDICTS: tuple[Verdict, ...] = (
    "growing",
    "waits for the collector",
    "filling",
    "settling",
    "steady",
    "too short to tell",
)
UNITS: tuple[Unit, ...] = ("step", "epoch", "fit", "evaluate", "predict", "model")
WAITS: Verdict = "waits for the collector"
# What may be kept, as a multiple of what a series gains that is not sure to grow.
_ABOUT_AS_MUCH = 0.5, 3.0
# What TensorFlow keeps of which each part has a known size.
_KNOWN_SIZE = ("compiled_programs", "kernel_cache")


@dataclass(frozen=True)
class Growth:
    """Whether one series of a run grows, and how fast.

    Attributes:
        series: Name of the samples' column, with the device where there are several.
        verdict: One of ``VERDICTS``. ``"growing"`` is never said before the first epoch has ended; without epochs,
            not before 200 rows.
        rate: Bytes per ``unit``; ``None`` if there is too little to measure it.
        unit: What the rate counts: the training step, or what explains the growth better, such as the ``fit``.
        interval: Ends of an interval that holds the true rate 95 times of 100, bytes per ``unit``.
        since_step: First step of the rows that show the growth, or that show what may be growth though it is too
            short to tell. Of garbage in the heap, the first step since the newest full collection. ``None`` if it
            doesn't grow.
        limit: Bytes that the series may not pass, if known.
        met_at: Step that meets the limit at this rate; ``None`` if it doesn't grow or no limit is known.
        bytes_per_step: The rate per training step, whatever ``unit`` is.
        explanation: The verdict as a sentence for users.
        num_samples: Number of samples behind the verdict.
        label: What the series is, in words: ``"CPU:0 in use"``.
        steps_per_unit: Training steps in one ``unit``.
    """

    series: str
    verdict: Verdict
    rate: float | None
    unit: Unit
    interval: tuple[float, float] | None
    since_step: int | None
    limit: int | None
    met_at: int | None
    bytes_per_step: float | None
    explanation: str
    num_samples: int
    label: str = ""
    steps_per_unit: float = 1.0

    @property
    def is_growing(self) -> bool:
        """Whether the verdict is ``"growing"``."""
        return self.verdict == "growing"

    @property
    def low(self) -> float | None:
        """Lower end of the interval, bytes per training step."""
        return None if self.interval is None else self.interval[0] / self.steps_per_unit

    @property
    def high(self) -> float | None:
        """Upper end of the interval, bytes per training step."""
        return None if self.interval is None else self.interval[1] / self.steps_per_unit


@dataclass(frozen=True)
class TraceLink:
    """One line of a trace: how an object is held, from the name where it begins to the object that should be gone.

    Attributes:
        words: The object, and how the one before leads to it: ``".model -> Sequential"``.
        verdict: ``"expected"``, ``"suspect"`` (the one reference to change), ``"stuck"`` (alive because of it) or
            ``"unknown"``.
        reason: Why, from what is known of Keras and TensorFlow; ``""`` if nothing is.
    """

    words: str
    verdict: str = "unknown"
    reason: str = ""


@dataclass(frozen=True)
class LeakFinding:
    """One cause of growth.

    Attributes:
        cause: Its name: ``"retained_tensors"``, ``"graphs_pinned"``, ...
        evidence: What was counted, as sentences.
        bytes_per_step: Its share of the growth, bytes per training step; ``None`` if unknown.
        since_step: First step of the rows that show it; ``None`` if unknown.
        confidence: Between 0 and 1.
        where: File and line, holder, or layer; ``""`` if there is none.
        fix: A change of a line or two.
        unit: The unit that explains it, as in ``Growth``.
        rate: Bytes per ``unit``; ``None`` if unknown.
        known_issue: Where it is reported: ``"tensorflow #80895"``; ``""`` if nowhere.
        whose: ``"yours"``, ``"TensorFlow's"`` or ``"Keras'"``.
        trace: From a name to the object; empty if there is none.
    """

    cause: str
    evidence: str
    bytes_per_step: float | None
    since_step: int | None
    confidence: float | None
    where: str
    fix: str
    unit: str = "step"
    rate: float | None = None
    known_issue: str = ""
    whose: str = "yours"
    trace: tuple[TraceLink, ...] = ()

    def explains(self, growth: Growth) -> bool:
        """Whether what is kept gains about as much as a series, or more: RSS uses free memory first.

        What TensorFlow or Keras keep explains it only if each part of it has a known size, as compiled programs and
        eager kernels have.
        """
        low, high = _ABOUT_AS_MUCH
        is_known = self.whose == "yours" or self.cause in _KNOWN_SIZE
        if not is_known or not self.bytes_per_step or not growth.bytes_per_step:
            return False
        return low <= self.bytes_per_step / growth.bytes_per_step <= high


@dataclass(frozen=True)
class OwnRise:
    """A rise of RSS that our own search for causes brought about; it is no growth of the run's.

    Attributes:
        step: The newest row's ``step`` at that time: later rows include the rise.
        rss_bytes: By how much RSS rose.
    """

    step: int
    rss_bytes: int
