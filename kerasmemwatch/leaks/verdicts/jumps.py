"""A level that shifts once is no growth: a second model, a cache for validation, a larger batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["is_in_few_jumps", "only_jump"]

_NUM_BLOCKS = 16
# Share of the whole rise that one jump explains.
_MOST_OF_IT = 0.8
# RSS that rises so much in so few of the blocks rises with high-water marks, not with the steps.
_FEW_BLOCKS, _SHARE_OF_FEW = 3, 0.5


def is_in_few_jumps(values: NDArray[np.float64]) -> bool:
    """Whether a few of the blocks hold most of the rise.

    Args:
        values: ``float64[num_rows]``, RSS whose floor rises.
    """
    floors = np.array([block.min() for block in np.array_split(values, min(_NUM_BLOCKS, len(values)))])
    rises = np.sort(np.diff(floors))
    return bool(rises[-_FEW_BLOCKS:].sum() > _SHARE_OF_FEW * (floors[-1] - floors[0]))


def only_jump(values: NDArray[np.float64]) -> int | None:
    """The first row after the one jump that explains nearly all of a rise; ``None`` if there is none.

    Args:
        values: ``float64[num_rows]``, whose floor rises.
    """
    blocks = np.array_split(values, min(_NUM_BLOCKS, len(values)))
    floors = np.array([block.min() for block in blocks])
    rises = np.diff(floors)
    highest = int(np.argmax(rises))
    if rises[highest] < _MOST_OF_IT * (floors[-1] - floors[0]):
        return None
    # A block that the jump is in keeps the floor before it.
    begin = sum(len(block) for block in blocks[: highest + 1]) - len(blocks[highest])
    own = np.diff(values[begin : begin + 2 * len(blocks[highest])])
    return begin + int(np.argmax(own)) + 1
