"""Graphs that TensorFlow's registry of gradients keeps for ever, and graphs that gain operations."""

from __future__ import annotations

from collections.abc import Iterator

from kerasmemwatch.leaks.causes.case import Case, at
from kerasmemwatch.records.growth import LeakFinding, TraceLink
from kerasmemwatch.units import a_unit

__all__ = ["graph_growth", "graphs_pinned"]

_FEWEST = 3
# Operations since then, in all and a step, and the most that RSS grows by for one.
_FEWEST_OPERATIONS, _LEAST_A_STEP, _MAX_OPERATION_BYTES = 10, 0.2, 128 * 1024


def graphs_pinned(case: Case) -> Iterator[LeakFinding]:
    """A finding if the registry of gradients grows, and functions do or graphs stay with its entries."""
    rises = case.rises
    if not (rises.gradients >= _FEWEST and (rises.functions > 0 or _are_kept(case))):
        return
    unit, times = _unit(case)
    if not times:
        return
    rate = case.grown_bytes / times
    again = unit == "fit" and rises.models < times / 2
    look = case.look
    evidence = f"TensorFlow's registry of gradients gained {rises.gradients:,.0f} entries, "
    evidence += f"{rises.gradients / times:.3g} {a_unit(unit)}"
    evidence += f", and {rises.functions:,.0f} functions stayed with them." if rises.functions > 0 else "."
    if look is not None:
        evidence += f" {look.graphs:,} graphs are alive."
    yield LeakFinding(
        cause="graphs_pinned",
        evidence=evidence,
        bytes_per_step=case.main.bytes_per_step,
        since_step=case.main.since_step,
        confidence=0.9,
        where=at(None if look is None else look.graph_place or look.call),
        fix=_fix(again, unit),
        unit=unit,
        rate=None if rate != rate else rate,
        known_issue="keras #16320" if again else "tensorflow #80895",
        whose="TensorFlow's",
        trace=(
            TraceLink("TensorFlow's registry of gradients", "expected", "it lives as long as the process"),
            TraceLink("['CustomGradient-...'] function", "suspect", "made once for each trace, never removed"),
            TraceLink(".captured FuncGraph", "stuck", "its model is trained no more"),
            TraceLink(".captures variables and optimizer slots", "stuck", "the graph captured them"),
        ),
    )


def _are_kept(case: Case) -> bool:
    """Whether no fewer graphs lived at the newest look than entries had come: TensorFlow may drop functions alone."""
    return case.look is not None and case.look.graphs >= case.rises_then.gradients >= _FEWEST


def graph_growth(case: Case) -> Iterator[LeakFinding]:
    """A finding if a graph gained operations since graphs were first counted."""
    grown = None if case.look is None else case.look.grown_graph
    # Graphs live on the host.
    most = max(case.growth, key=lambda each: (each.series.startswith("host"), each.bytes_per_step or 0.0))
    if grown is None or not (most.bytes_per_step or 0.0) > 0:
        return
    steps = grown.steps
    is_enough = grown.more >= max(_FEWEST_OPERATIONS, _LEAST_A_STEP * steps)
    if not is_enough or grown.more * _MAX_OPERATION_BYTES < (most.bytes_per_step or 0.0) * steps:
        return
    yield LeakFinding(
        cause="graph_growth",
        evidence=f"A {grown.class_name} gained {grown.more:,} operations in {steps:,} steps and has "
        f"{grown.num_operations:,}. A graph keeps each as long as it lives, and a session copies what is new.",
        bytes_per_step=most.bytes_per_step,
        since_step=most.since_step,
        confidence=0.85,
        where=at(grown.place),
        fix="Make operations once, before the loop, and feed what changes; call graph.finalize(): the line that "
        "adds to it then raises an error.",
        unit="step",
        rate=most.bytes_per_step,
        trace=(
            TraceLink(grown.class_name, "expected", "it is in use"),
            TraceLink(f"operations x{grown.num_operations:,}", "suspect", "the line above adds more and more"),
        ),
    )


def _unit(case: Case) -> tuple[str, float]:
    """What makes the entries, and how often it happened."""
    rises = case.rises
    for unit, times in (("model", rises.models), ("fit", rises.calls), ("epoch", rises.epochs)):
        is_by_step = unit == "epoch" and rises.gradients >= rises.steps
        if times >= 2 and rises.gradients >= times * 0.5 and not is_by_step:
            return unit, times
    return "step", rises.train_steps or rises.steps


def _fix(again: bool, unit: str) -> str:
    if again:
        return "Compile the model once, before the loop: each compile() makes fit trace its step anew."
    if unit == "step":
        return "Make the traced function once, outside the loop, and pass what changes as tensors."
    return "Call kerasmemwatch.release(model) when you are done with a model, or MemoryWatch(release_dead_models=True)."
