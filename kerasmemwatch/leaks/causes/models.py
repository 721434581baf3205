"""Models that pile up: kept by a container, by ``History`` objects and callbacks, or by Keras' global state."""

from __future__ import annotations

import math
from collections.abc import Iterator

from kerasmemwatch.leaks.causes.case import Case, at
from kerasmemwatch.leaks.causes.trace import trace_of
from kerasmemwatch.leaks.evidence.chains import Chain
from kerasmemwatch.leaks.evidence.models import Models
from kerasmemwatch.records.growth import LeakFinding
from kerasmemwatch.units import format_bytes

__all__ = ["models"]

_FEWEST, _FEWEST_BY_STEP, _NEARLY_ALL = 3, 8, 0.8


def models(case: Case) -> Iterator[LeakFinding]:
    """A finding if live models pile up."""
    look = case.look
    found = case.models if look is None else look.models
    if found is None or found.count < _FEWEST:
        return
    more = case.change(lambda each: each.models.count)
    trained = case.rises_then.models + 1
    if more is not None and more < 1:
        return
    is_made = found.more is not None and found.more >= _FEWEST
    is_trained = trained >= _FEWEST and found.count >= trained / 2
    # Where none was counted before: as many as half of the steps are no models that work together.
    steps = case.rises.rows if math.isnan(case.rises.steps) else case.rises.steps
    is_of_steps = found.more is None and found.count >= max(_FEWEST_BY_STEP, steps / 2)
    if more is None and not (is_made or is_trained or is_of_steps):
        return
    each_bytes = found.num_bytes / found.count
    held = f"{found.count:,} models are alive, with {format_bytes(found.num_bytes)} of variables."
    if more is not None and look is not None:
        held += f" There are {more:,.0f} more than {look.step - case.looks[0].step:,} steps before."
    elif is_made:
        held += f" {found.more:,} of them are new since objects were first counted."
    chain = found.chains[0] if found.chains else None
    if more is not None and look is not None:
        per_step: float | None = more * each_bytes / max(1, look.step - case.looks[0].step)
    else:
        per_step = each_bytes * case.rises_then.models / case.rises_then.steps if _are_kept(case, found) else None
    yield LeakFinding(
        cause="models_accumulate",
        evidence=held,
        bytes_per_step=per_step,
        since_step=case.main.since_step,
        confidence=0.9 if more is not None and chain is not None and chain.root is not None else 0.7,
        where=at(found.place or (None if look is None else look.call), _holder(chain)),
        fix=_fix(chain),
        unit="model",
        rate=each_bytes,
        known_issue=_issue(chain),
        whose="Keras'" if _is_global_state(chain) else "yours",
        trace=trace_of(chain, reason="alive, though another model trains", count=found.count - 1),
    )


def _are_kept(case: Case, found: Models) -> bool:
    """Whether nearly all models that were trained live, and not because Python's collector has not run."""
    rises = case.rises_then
    is_collected = case.collected is not None or rises.collections >= rises.models / 2
    return is_collected and rises.steps > 0 and rises.models >= _FEWEST and found.count >= _NEARLY_ALL * rises.models


def _holder(chain: Chain | None) -> str:
    """The container of the models, or of the functions that close over one each; ``""`` if a function is in none."""
    outer = None if chain is None else chain.outer
    if outer is None or (outer is not chain and not outer.expression.endswith("]")):
        return ""
    return outer.expression.partition("[")[0]


def _has(chain: Chain | None, class_name: str = "", module: str = "") -> bool:
    steps = () if chain is None else chain.steps[:-1]
    return any((class_name and step.class_name == class_name) or (module and module in step.module) for step in steps)


def _is_global_state(chain: Chain | None) -> bool:
    root = None if chain is None else chain.root
    return root is not None and "global_state" in f"{root.scope}{root.name}"


def _fix(chain: Chain | None) -> str:
    holder = _holder(chain)
    if _has(chain, class_name="History"):
        return f"Keep the figures, not the History, which keeps its model: {holder}.append(history.history)"
    if _has(chain, module=".callbacks."):
        return f"Keep what the callback measured, not the callback in {holder}, which keeps its model."
    if _is_global_state(chain):
        return "Call keras.backend.clear_session() before the next model is made."
    if holder:
        return (
            f"Keep weights or files instead of models in {holder}, or empty it when a model is done: {holder}.clear()"
        )
    return "Delete each model when it is done, and call keras.backend.clear_session()."


def _issue(chain: Chain | None) -> str:
    if _has(chain, class_name="History"):
        return "keras #12929"
    return "keras #2102" if _is_global_state(chain) else ""
