"""``release``: give back what TensorFlow keeps of models that nobody uses any more."""

from __future__ import annotations

import gc
import sys
import weakref
from dataclasses import dataclass
from typing import Any

from kerasmemwatch.attribution.live.live_buffers import handle_keys
from kerasmemwatch.attribution.variables.inventory import check_model, ledger
from kerasmemwatch.attribution.variables.variable_size import components
from kerasmemwatch.compat.names import missing
from kerasmemwatch.compat.tensorflow import CLEAR_KERNELS, CONTEXT, CURRENT_CONTEXT, IS_INITIALIZED, RELEASE
from kerasmemwatch.errors import ProbeUnavailableError
from kerasmemwatch.leaks.gradient_entries import bind, bound_entries, newest_entry
from kerasmemwatch.probes.allocators import allocators
from kerasmemwatch.switches import disabled
from kerasmemwatch.units import format_bytes

__all__ = ["DeadModels", "Released", "release"]


@dataclass(frozen=True)
class Released:
    """What a ``release`` gave back.

    Attributes:
        entries: Number of entries that left TensorFlow's gradient registry.
        graphs: Number of graphs that were freed, as far as these entries had kept them.
        entries_in_use: Number of entries whose graphs something else still holds, such as a live model. They go with
            these graphs from now on.
        kernel_cache_cleared: Whether the eager kernel cache was cleared.
        in_use_before: Bytes that all devices had in use before; ``None`` unless all of them count exactly.
        in_use_after: The same afterwards.
        notes: What could not be done, and why.
    """

    entries: int = 0
    graphs: int = 0
    entries_in_use: int = 0
    kernel_cache_cleared: bool = False
    in_use_before: int | None = None
    in_use_after: int | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = f"{_count(self.graphs, 'graph')} and {_count(self.entries, 'gradient registry entry')}"
        lines = [f"Released {what}{', cleared the eager kernel cache' if self.kernel_cache_cleared else ''}."]
        if self.in_use_before is not None and self.in_use_after is not None:
            freed = format_bytes(self.in_use_before - self.in_use_after)
            before, after = format_bytes(self.in_use_before), format_bytes(self.in_use_after)
            lines.append(f"In use on devices: {before} before, {after} after ({freed} freed).")
        if self.entries_in_use:
            lines.append(f"{_count(self.entries_in_use, 'entry')} in use: freed with the models that need them.")
        return " ".join([*lines, *self.notes])

    __repr__ = __str__


def release(model: Any = None) -> Released:
    """Give back what TensorFlow keeps of dead models, or of a given model as soon as that dies.

    TensorFlow's gradient registry keeps the graph of every function that trained a model, and with it the model's
    variables and the optimizer's, also after ``keras.backend.clear_session()``. From this call on, these entries last
    no longer than their graphs: a live model trains on as before, and every gradient that can be taken at all is the
    same. Call it after each model of a loop, when nothing of yours refers to the model any more.

    Without a model it also clears TensorFlow's cache of eager kernels, which grows with each new variable name and
    shape. Stateful random operations begin their sequence anew then (``tf.random.*`` with a ``seed`` of its own, or
    within a ``tf.function``); Keras' own random layers and initializers do not.

    It collects garbage once. Programs compiled by XLA stay, as TensorFlow has no way to free them.

    Args:
        model: A Keras model or layer, or a ``tf.Module``; ``None`` for all dead models.

    Returns:
        What was released.

    Raises:
        InvalidTypeError: If ``model`` is neither a Keras layer nor a ``tf.Module`` (a ``TypeError``).

    Example:
        >>> import keras, numpy as np
        >>> for units in (8, 16):
        ...     model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units), keras.layers.Dense(1)])
        ...     model.compile("adam", "mse")
        ...     history = model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
        ...     del model, history
        ...     keras.backend.clear_session()
        ...     released = release()
        >>> released.entries > 0, released.kernel_cache_cleared
        (True, True)
    """
    handles = None if model is None else _handles(model)
    if disabled() or not _has_context():
        return Released()
    before = _in_use()
    old = bound_entries()
    bound = bind(handles)
    # Its frame would keep it.
    del model
    gc.collect()
    cleared = handles is None and _clear_kernels()
    left = bound_entries()
    considered = old | bound.names if handles is None else bound.names
    return Released(
        entries=len((old | bound.names) - left),
        graphs=sum(graph() is None for graph in bound.graphs),
        entries_in_use=len(considered & left),
        kernel_cache_cleared=cleared,
        in_use_before=before,
        in_use_after=_in_use(),
        notes=tuple(f"{error.full_name} is {error.reason}. {error.lost}" for error in missing(RELEASE)),
    )


def _handles(model: Any) -> set[int]:
    """Return ids of the resource handles of a model's variables, its optimizer's among them."""
    check_model(model)
    return handle_keys(part for _, variable in ledger(model).variables() for part in components(variable))


def _has_context() -> bool:
    """Whether TensorFlow has run an operation; without one it keeps nothing, and may still be configured."""
    context = CURRENT_CONTEXT.if_loaded()
    return "tensorflow" in sys.modules and bool(IS_INITIALIZED.of(context, context is not None))


def _in_use() -> int | None:
    try:
        found = allocators()
    except ProbeUnavailableError:
        return None
    exact = all(one.info.counting == "exact" for one in found)
    return sum(one.read()[0] for one in found) if exact else None


def _clear_kernels() -> bool:
    if not (CLEAR_KERNELS.exists and CONTEXT.exists):
        return False
    CLEAR_KERNELS.get()(CONTEXT.get()())
    return True


def _count(number: int, what: str) -> str:
    several = what[:-1] + "ies" if what.endswith("y") else what + "s"
    return f"{number} {what if number == 1 else several}"


class DeadModels:
    """Releases models as they die, for a watch with ``release_dead_models=True``.

    It leaves the cache of eager kernels alone, so that random numbers stay the same.
    """

    def __init__(self) -> None:
        self._newest: str | None = None
        self._seen: list[weakref.ref[Any]] = []

    def __reduce__(self) -> tuple[type[DeadModels], tuple[()]]:
        return DeadModels, ()  # a copy watches other models

    def look(self) -> None:
        """Bind the entries that are new. It takes next to no time if there are none."""
        if newest_entry() != self._newest:
            bind()
            self._newest = newest_entry()

    def begin(self, model: Any) -> None:
        """Called before a model runs; collects garbage if the model is new and others ran before."""
        self.look()
        self._seen = [reference for reference in self._seen if reference() is not None]
        if model is None or any(reference() is model for reference in self._seen):
            return
        # A model is part of cycles, so without a collection it may outlive the next one's training.
        if self._seen and gc.isenabled():
            gc.collect()
        self._seen.append(weakref.ref(model))
