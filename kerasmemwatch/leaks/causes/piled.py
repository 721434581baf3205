"""Objects that pile up, such as tapes, optimizers and objects of users' classes, and single ones that grow."""

from __future__ import annotations

from collections.abc import Iterator

from kerasmemwatch.leaks.causes.case import Case, at
from kerasmemwatch.leaks.causes.trace import trace_of
from kerasmemwatch.leaks.evidence.chains import FINALIZER_FIX
from kerasmemwatch.leaks.evidence.piles import Pile
from kerasmemwatch.records.growth import LeakFinding
from kerasmemwatch.units import format_bytes

__all__ = ["piled"]

# Share of the growth that the value of a single object explains.
_LEAST_SHARE = 0.4
_CAUSES = {
    "growing variable": ("retained_tensors", "", 0.8),
    "growing table": ("retained_tensors", "", 0.8),
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
        if pile.num_bytes is not None and not _explains(case, pile, pile.num_bytes):
            continue
        if pile.chain.root is None and not (pile.chain.is_cut and pile.kind == "object"):
            continue
        cause, issue, confidence = _CAUSES[pile.kind]
        name = pile.chain.holder(pile.count)
        more = "" if pile.more is None else f", {pile.more:,} of them new since memory grows"
        yield case.finding(
            cause,
            _held(pile, name) or f"{_alive(pile)}{more}.{_known(pile)}",
            _fix(pile, name),
            confidence,
            where=at(pile.place, name),
            known_issue=issue,
            trace=trace_of(pile.chain, pile.like, "it grows" if pile.like else "one of many", pile.count),
        )


def _explains(case: Case, pile: Pile, num_bytes: int) -> bool:
    """Whether the value of a single object, of so many bytes, explains the growth."""
    if pile.kind == "growing table" and " GPU:" in case.main.series:
        return False  # its keys and values are on the host
    first = case.looks[0]
    alike = (each for each in first.piles if each.kind == pile.kind and each.class_name == pile.class_name)
    held = next((each.num_bytes for each in alike), None)
    steps = case.looks[-1].step - first.step
    if held is None or not steps:
        return case.may_be_growth(num_bytes, _LEAST_SHARE)
    return num_bytes - held >= _LEAST_SHARE * case.least_of_main * steps


def _held(pile: Pile, name: str) -> str:
    """What a single object that grows holds; ``""`` of others."""
    if pile.num_bytes is None:
        return ""
    return f"{name or 'A ' + pile.class_name} holds {format_bytes(pile.num_bytes)} by now: {pile.like}."


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
        "growing variable": f"Keep the newest rows only, as in {name}.assign(value[-4096:]); or give {name} a fixed "
        "shape, and write over its oldest rows.",
        "growing table": f"Remove keys that are needed no more: {name}.remove(keys).",
        "open tape": f"Open a tape in each step, with tf.GradientTape() as {name}: ..., and take its gradient there.",
        "tape": f"Take the gradient and let go of the tape: del tape; don't keep tapes in {name}.",
        "optimizer": f"Use one optimizer, or remove the old one from {name}.",
        "variable": f"Create the variable once and update it with variable.assign(value); {name} keeps every one.",
        "iterator": f"Make the iterator once, or remove the old one from {name}.",
        "object": f"Remove finished objects from {name}, which keeps every {pile.class_name}.",
    }[pile.kind]
