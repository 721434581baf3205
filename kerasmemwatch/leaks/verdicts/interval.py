"""Slope of an autocorrelated series, with an interval that holds the true one 95 times of 100."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["slope"]

Floats = NDArray[np.float64]

# 97.5 % quantiles of Student's t distribution for 1, 2, ... degrees of freedom, and of the normal distribution.
_T_97_5 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_NORMAL_97_5 = 1.960
# Prefetch alternates from row to row, which the means of blocks don't.
_MANY_BLOCKS, _FEW_BLOCKS, _MANY_ROWS = 40, 20, 160
_MAX_CORRELATION, _ROUNDS = 0.98, 4
# The minima of blocks tell the slope if their interval is far narrower than that of the means, which is not narrow.
_FEWEST_OF_BLOCK, _NARROW, _FAR_NARROWER = 5, 0.2, 0.7


def slope(x: Floats, y: Floats) -> tuple[float, float, float]:
    """The slope and the two ends of its 95 % interval.

    Rows are autocorrelated, so the slope is that of a line with errors of a first-order autoregression through the
    means of blocks (Prais-Winsten), whose correlation is corrected for the bias that fitting a line gives it
    (as Kendall's and Marriott and Pope's, Biometrika 41, 1954). If the line through the blocks' minima has a far
    narrower interval, that one is taken: batches that wait move the means, but not the floor.

    Args:
        x: ``float64[num_rows]``, rising.
        y: ``float64[num_rows]``, at least 3 values.
    """
    x, y = x - x[0], y - y[0]
    found = _line(x, y, _MANY_BLOCKS if len(x) >= _MANY_ROWS else _FEW_BLOCKS, np.add)
    width = found[2] - found[1]
    if width <= _NARROW * found[0] or len(x) < _FEW_BLOCKS * _FEWEST_OF_BLOCK:
        return found
    of_floor = _line(x, y, _FEW_BLOCKS, np.minimum)
    return of_floor if of_floor[2] - of_floor[1] < _FAR_NARROWER * width else found


def _line(x: Floats, y: Floats, most_blocks: int, of_block: np.ufunc) -> tuple[float, float, float]:
    """The slope of the line through the means or minima of blocks, and the two ends of its interval."""
    blocks = np.linspace(0, len(x), 1 + min(len(x), most_blocks)).astype(int)
    lengths = np.diff(blocks)
    x = np.add.reduceat(x, blocks[:-1]) / lengths
    y = of_block.reduceat(y, blocks[:-1]) / (lengths if of_block is np.add else 1)
    count, correlation = len(x), 0.0
    x = x - x.mean()
    lines = np.array([np.ones(count), x, y])
    for _ in range(_ROUNDS):
        rate, offset, _ = _fitted(lines, correlation)
        residuals = y - offset - rate * x
        square = float(residuals @ residuals)
        if square <= 1e-24 * float(y @ y):
            return rate, rate, rate
        seen = float(residuals[1:] @ residuals[:-1]) / square
        correlation = min(_MAX_CORRELATION, seen + (3 + 4 * seen) / count)
    rate, _, error = _fitted(lines, correlation)
    reach = _quantile(count - 2) * error
    return rate, rate - reach, rate + reach


def _fitted(lines: Floats, correlation: float) -> tuple[float, float, float]:
    """Slope, offset and the slope's standard error of a line whose errors follow each other with a correlation.

    Args:
        lines: ``float64[3, num_points]``: ones, ``x`` and ``y``.
    """
    freed = lines.copy()
    freed[:, 0] *= (1 - min(1.0, correlation**2)) ** 0.5
    freed[:, 1:] -= correlation * lines[:, :-1]
    ones, x, y = freed
    (a, b, ones_y), (_, c, x_y) = (freed[:2] @ freed.T).tolist()
    determinant = a * c - b * b
    offset = (c * ones_y - b * x_y) / determinant
    rate = (a * x_y - b * ones_y) / determinant
    residuals = y - offset * ones - rate * x
    variance = float(residuals @ residuals) / (len(x) - 2) * a / determinant
    return rate, offset, max(0.0, variance) ** 0.5


def _quantile(freedom: int) -> float:
    if freedom <= len(_T_97_5):
        return _T_97_5[max(freedom, 1) - 1]
    return _NORMAL_97_5 + 2.5 / freedom  # to the third digit
