"""Tensors that were counted, but not found in any container: the growth is theirs, whatever holds them."""

from __future__ import annotations

from collections.abc import Iterator

from kerasmemwatch.leaks.causes.case import Case
from kerasmemwatch.records.growth import LeakFinding
from kerasmemwatch.units import format_bytes

__all__ = ["nameless_tensors"]

# What tensors gained between two looks, as a share of the growth; and what they take in all, if there was one look.
_LEAST_SHARE, _LEAST_OF_ALL = 0.4, 0.8
_FEWEST = 8


def nameless_tensors(case: Case) -> Iterator[LeakFinding]:
    """A finding if live tensors take as much as memory gained, and are as many as its units; no holder has a name."""
    look, first = case.look, case.looks[0] if len(case.looks) > 1 else None
    if look is None or case.are_devices_steady:
        return
    count, num_bytes = look.tensors
    evidence = f"{count:,} tensors are alive, {format_bytes(num_bytes)}"
    if first is not None:
        steps, more, gained = look.step - first.step, count - first.tensors[0], num_bytes - first.tensors[1]
        evidence += f": {more:,} more than {steps:,} steps before, which take {format_bytes(gained)}"
        is_enough = gained >= _LEAST_SHARE * case.least_of_main * steps
    else:
        steps, held = look.step, [each for each in look.containers.values() if each.kind == "tensor" and each.container]
        more = count - sum(each.count for each in held)
        gained = num_bytes - sum(each.num_bytes for each in held)
        is_enough = more >= case.num_units and case.may_be_growth(gained, _LEAST_OF_ALL)
    if not (steps > 0 and more >= _FEWEST and is_enough):
        return
    per_step = min(gained / steps, case.main.bytes_per_step or 0.0)
    yield case.finding(
        "retained_tensors",
        f"{evidence}. What holds them was not found.",
        "Look for what leads from one tensor to the next, such as a linked list, or a dataset that is made longer "
        "again and again; and keep less of it.",
        0.6 if first is not None else 0.5,
        bytes_per_step=per_step,
        **case.in_unit(per_step),
    )
