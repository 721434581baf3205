"""A ``tf.function`` that is traced again and again, because an argument differs."""

from __future__ import annotations

from collections.abc import Iterator

from kerasmemwatch.leaks.causes.case import Case
from kerasmemwatch.leaks.evidence.functions import Difference, TracedFunction
from kerasmemwatch.leaks.evidence.look import Look
from kerasmemwatch.leaks.evidence.roots import is_user_file
from kerasmemwatch.records.growth import LeakFinding

__all__ = ["retracing"]

_FEWEST_TRACES, _LEAST_RISE = 5, 5
_ISSUES = {"value": "tensorflow #29027", "shape": "tensorflow #38598", "object": "tensorflow #31175"}


def retracing(case: Case) -> Iterator[LeakFinding]:
    """Findings for functions whose traces pile up."""
    look = case.look
    if look is None or not case.rises.functions >= _LEAST_RISE:
        return
    for each, more in sorted(_grown(case, look), key=lambda pair: -pair[1])[:2]:
        # Graphs live on the host: of a device they take next to nothing.
        most = max(case.growth, key=lambda one: one.bytes_per_step or 0.0)
        per_step = most.bytes_per_step if (most.bytes_per_step or 0.0) > 0 else None
        yield LeakFinding(
            cause="retracing",
            evidence=_evidence(each, more),
            bytes_per_step=per_step,
            since_step=most.since_step,
            confidence=0.9 if each.differences or each.num_objects > 1 else 0.6,
            where=_where(each, look),
            fix=_fix(each),
            unit="step",
            rate=per_step,
            known_issue=_ISSUES.get(each.differences[0].kind if each.differences else "object", ""),
        )


def _grown(case: Case, look: Look) -> Iterator[tuple[TracedFunction, int]]:
    before = {}
    if len(case.looks) > 1:
        before = {(each.file, each.line, each.name): each.num_traces for each in case.looks[0].functions}
    for each in look.functions:
        more = each.num_traces - before.get((each.file, each.line, each.name), 0 if before else 1)
        # Keras makes one for each model and for each compile(): those that no call of the user's makes anew are pinned.
        is_own = is_user_file(each.file) or each.differences
        if is_own and more >= _FEWEST_TRACES - 2 and each.num_traces >= _FEWEST_TRACES:
            yield each, more


def _evidence(each: TracedFunction, more: int) -> str:
    name = each.name.replace(".<locals>", "")
    if each.num_objects >= each.num_traces:
        return f"{name}() is made into {each.num_objects:,} tf.functions that are alive, each traced by itself."
    words = f"{name}() was traced {each.num_traces:,} times, {more:,} of them while memory grew."
    for one in each.differences[:2]:
        shown = f": {', '.join(one.shown)}, ..." if one.shown else ""
        words += f" Its argument {one.name} differs in {_KINDS[one.kind]}{shown}"
    return words


_KINDS = {"value": "the Python value", "shape": "shape", "dtype": "type", "object": "the object", "type": "structure"}


def _where(each: TracedFunction, look: Look) -> str:
    if is_user_file(each.file):
        return f"{each.file}:{each.line}, {each.name.replace('.<locals>', '')}()"
    return f"{look.call.file}:{look.call.line}, {look.call.source}" if look.call is not None else each.name


def _fix(each: TracedFunction) -> str:
    if not each.differences:
        return "Make the tf.function once, outside the loop or the class's method, and call it again and again."
    first: Difference = each.differences[0]
    return {
        "value": f"Pass a tensor instead of the Python value: {first.name}=tf.constant({first.name})",
        "shape": "Give all batches one size: drop_remainder=True or padding; or @tf.function(reduce_retracing=True).",
        "dtype": f"Convert {first.name} to one type before the call: tf.cast({first.name}, tf.float32)",
        "object": "Make the function once and pass tensors instead of objects.",
        "type": f"Pass {first.name} always with the same structure, shapes and types; pad to a few sizes.",
    }[first.kind]
