"""Objects that pile up: kept tapes, variables, optimizers, iterators, and objects of users' classes."""

from __future__ import annotations

from collections.abc import Iterator

from kerasmemwatch.leaks.causes.case import Case, at
from kerasmemwatch.leaks.causes.trace import trace_of
from kerasmemwatch.leaks.evidence.chains import FINALIZER_FIX
from kerasmemwatch.leaks.evidence.piles import Pile
from kerasmemwatch.records.growth import LeakFinding

__all__ = ["piled"]

_CAUSES = {
    "tape": ("retained_tensors", "tensorflow #21584", 0.9),
    "open tape": ("retained_tensors", "tensorflow #45016", 0.85),
    "optimizer": ("variables_accumulate", "", 0.85),
    "variable": ("variables_accumulate", "", 0.7),
    "iterator": ("iterators_accumulate", "tensorflow #37653", 0.7),
    "object": ("python_objects", "", 0.6),
}


def piled(case: Case) -> Iterator[LeakFinding]:
    """A finding for each class whose objects pile up, and that a name of the user's holds as far as is known."""
    look = case.look
    if look is None:
        return
    for pile in look.piles:
        if pile.chain is None or (pile.chain.is_librarys and pile.place is None):
            continue
        if pile.chain.root is None and not (pile.chain.is_cut and pile.kind == "object"):
            continue
        cause, issue, confidence = _CAUSES[pile.kind]
        name = pile.chain.holder(pile.count)
        more = "" if pile.more is None else f", {pile.more:,} of them new since memory grows"
        yield LeakFinding(
            cause=cause,
            evidence=f"{_alive(pile)}{more}.{_known(pile)}",
            bytes_per_step=case.main.bytes_per_step,
            since_step=case.main.since_step,
            confidence=confidence,
            where=at(pile.place, name),
            fix=_fix(pile, name),
            unit="step",
            rate=case.main.bytes_per_step,
            known_issue=issue,
            trace=trace_of(pile.chain, reason="one of many", count=pile.count),
        )


def _alive(pile: Pile) -> str:
    if pile.count == 1:
        return f"A {pile.class_name} is alive"
    return f"{pile.count:,} objects of class {pile.class_name} are alive"


def _known(pile: Pile) -> str:
    if pile.chain is not None and pile.chain.is_cut:
        return " What holds them was not found."
    return {
        "tape": " A tape keeps every value that its gradients need.",
        "open tape": " It stays open between steps, so it keeps what every step computes.",
        "optimizer": " Each keeps slots for every variable.",
    }.get(pile.kind, "")


def _fix(pile: Pile, name: str) -> str:
    if pile.chain is not None and pile.chain.is_finalizers:
        return FINALIZER_FIX
    if not name:
        return f"Let go of each {pile.class_name} when it is done, and of attributes that lead to it, such as a parent."
    return {
        "open tape": f"Open a tape in each step, with tf.GradientTape() as {name}: ..., and take its gradient there.",
        "tape": f"Take the gradient and let go of the tape: del tape; don't keep tapes in {name}.",
        "optimizer": f"Use one optimizer, or remove the old one from {name}.",
        "variable": f"Create the variable once and update it with variable.assign(value); {name} keeps every one.",
        "iterator": f"Make the iterator once, or remove the old one from {name}.",
        "object": f"Remove finished objects from {name}, which keeps every {pile.class_name}.",
    }[pile.kind]
