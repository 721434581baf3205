"""Addresses of variables made within a step, such as an optimizer's in the first, or those that no model holds."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from kerasmemwatch.attribution.hooks.patching import replaced, unseen
from kerasmemwatch.attribution.hooks.tensorflow_hooks import traced_functions
from kerasmemwatch.attribution.live.live_buffers import Sighting, variable_addresses
from kerasmemwatch.attribution.live.tensor_places import host_address, resource_place, unwatched
from kerasmemwatch.attribution.variables.watched import Watched
from kerasmemwatch.compat.tensorflow import ASSIGN_VARIABLE, EAGER_TENSOR
from kerasmemwatch.errors import MissingNameError
from kerasmemwatch.faults import Faults

__all__ = ["variable_sightings"]


@contextmanager
def variable_sightings(before: Container[int], watched: Watched, faults: Faults) -> Iterator[list[Sighting]]:
    """Record buffers of variables that eager code assigns to, or that exist after a function is traced.

    Yields:
        Sightings in order of time, without variables of ``before``; none in a TensorFlow whose internals differ.
    """
    found: list[Sighting] = []

    @contextmanager
    def around() -> Iterator[None]:
        yield
        # A function that makes variables is traced once more after they have their first values.
        if sys.modules["tensorflow"].executing_eagerly():
            with faults.guard("trace", "Variables made in this step are unknown until it ends."):
                places = variable_addresses(watched.ledger(), in_step=True)
                now = time.time_ns()
                found.extend(Sighting(key, address, now) for key, address in places.items() if key not in before)

    with ExitStack() as exits:
        for hook in (traced_functions(around), _assignments(found, before)):
            try:
                exits.enter_context(hook)
            except MissingNameError as error:
                faults.remark("trace", error, error.lost)
        yield found


@contextmanager
def _assignments(found: list[Sighting], before: Container[int]) -> Iterator[None]:
    original, known = ASSIGN_VARIABLE.get(), set[int]()

    def note(resource: Any, address: int) -> None:
        if address:
            found.append(Sighting(id(resource), address, time.time_ns()))

    @functools.wraps(original)
    def hooked(resource: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        is_eager = EAGER_TENSOR.is_that_of(value)
        if is_eager and id(resource) not in known and id(resource) not in before:
            known.add(id(resource))
            with unwatched():
                # If it has a value yet.
                note(resource, resource_place(resource, value.dtype, in_step=True).address)
        with unseen:
            done = original(resource, value, *args, **kwargs)
        if is_eager:
            note(resource, host_address(value))
        return done

    with replaced(ASSIGN_VARIABLE, hooked):
        yield
