"""Medians with bootstrap intervals, of samples that were taken in rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Estimate", "bootstrap", "median"]

_SEED = 20_240_229
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 1) -> str:
        """The figure and its interval: ``"6.9 (6.8 to 7.1)"``."""
        return f"{self.value:,.{digits}f} ({self.low:,.{digits}f} to {self.high:,.{digits}f})"


def bootstrap(statistic: Callable[..., NDArray[np.float64]], *columns: ArrayLike) -> Estimate:
    """Percentile bootstrap with a fixed seed; whole rounds are drawn, so what is paired stays paired.

    Args:
        statistic: Takes an array for each column and reduces its last axis.
        *columns: ``float64[num_rounds]`` each.

    Example:
        >>> bootstrap(lambda a, b: np.median(a - b, axis=-1), [3.0, 4.0, 5.0], [1.0, 2.0, 3.0])
        Estimate(value=2.0, low=2.0, high=2.0)
    """
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    draws = np.random.default_rng(_SEED).integers(len(arrays[0]), size=(_RESAMPLES, len(arrays[0])))
    low, high = np.percentile(statistic(*(array[draws] for array in arrays)), [2.5, 97.5])
    return Estimate(float(statistic(*arrays)), float(low), float(high))


def median(values: Sequence[float]) -> Estimate:
    """The median with its interval."""
    return bootstrap(lambda column: np.median(column, axis=-1), values)
