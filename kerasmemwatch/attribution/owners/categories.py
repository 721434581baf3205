"""Category of an allocation, by its birth, death and owner. Pure.

The rules: a forward value that is alive at the next allocation of the backward pass is an activation, any other is a
temporary. Allocations of the backward pass are gradients if they are gradients of variables, else temporaries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.records.timeline import CATEGORIES, PHASES

__all__ = ["CODES", "PHASE_CODES", "by_life"]

CODES = {name: np.int8(code) for code, name in enumerate(CATEGORIES)}
PHASE_CODES = {name: np.int8(code) for code, name in enumerate(PHASES)}


def by_life(
    phase: NDArray[np.int8],
    birth: NDArray[np.int64],
    death: NDArray[np.int64],
    *,
    is_metric: NDArray[np.bool_],
    is_scalar_loss: NDArray[np.bool_],
) -> NDArray[np.int8]:
    """Categories of allocations that are neither variables nor gradients.

    Args:
        phase: ``int8[n]``, the phase of each allocation.
        birth: ``int64[n]``, index of an event.
        death: ``int64[n]``, index of an event.
        is_metric: ``bool[n]``, whether a metric made it.
        is_scalar_loss: ``bool[n]``, whether it is a scalar that the loss made.

    Example:
        >>> phase = np.array([PHASE_CODES[name] for name in ("forward", "forward", "backward")], np.int8)
        >>> none = np.zeros(3, bool)
        >>> birth, death = np.array([0, 1, 3]), np.array([4, 2, 5])
        >>> [CATEGORIES[code] for code in by_life(phase, birth, death, is_metric=none, is_scalar_loss=none)]
        ['activations', 'temporaries', 'temporaries']
    """
    category = np.full(len(phase), CODES["temporaries"], np.int8)
    forward = phase == PHASE_CODES["forward"]
    backward_births = np.sort(birth[phase == PHASE_CODES["backward"]])
    following = np.searchsorted(backward_births, birth, side="right")
    next_backward = np.append(backward_births, np.iinfo(np.int64).max)[following]
    category[forward & (death > next_backward)] = CODES["activations"]
    category[phase == PHASE_CODES["input"]] = CODES["inputs"]
    category[is_metric | is_scalar_loss] = CODES["other"]
    return category
