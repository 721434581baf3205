"""Category of an allocation, by its birth, death and owner. Pure.

The rules: a forward value that is alive at the next allocation of the backward pass is an activation, any other is a
temporary. Allocations of the backward pass are gradients if they are gradients of variables, else temporaries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.records.timeline import PHASES

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
    """Categories of allocations that are neither variables nor gradients."""
    category = np.full(len(phase), CODES["temporaries"], np.int8)
    forward = phase == PHASE_CODES["forward"]
    backward_births = np.sort(birth[phase == PHASE_CODES["backward"]])
    following = np.searchsorted(backward_births, birth, side="right")
    next_backward = np.append(backward_births, np.iinfo(np.int64).max)[following]
    category[forward & (death > next_backward)] = CODES["activations"]
    category[phase == PHASE_CODES["input"]] = CODES["inputs"]
    category[is_metric | is_scalar_loss] = CODES["other"]
    return category
