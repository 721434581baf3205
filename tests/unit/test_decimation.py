"""Decimation against an oracle that looks at one bucket at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kerasmemwatch.analysis.decimation import DENSE_ROWS, bucket_width, decimate

NAN = math.nan


def oracle(rows: np.ndarray, width: int, tracked: list[list[int]], sparse: list[int]) -> list[int]:
    """Indices of the rows to keep, found the slow way."""
    kept: set[int] = set()
    if width <= 1 or len(rows) <= 2:
        return list(range(len(rows)))
    for start in range(0, len(rows), width):
        bucket = range(start, min(start + width, len(rows)))
        kept |= {bucket[0], bucket[-1]}
        for group in tracked:
            best, best_index = -math.inf, None
            for index in bucket:
                for column in group:
                    if rows[index, column] > best:
                        best, best_index = rows[index, column], index
            if best_index is not None:
                kept.add(best_index)
        known = [index for index in bucket if any(not math.isnan(rows[index, column]) for column in sparse)]
        kept |= set(known[-1:])
    return sorted(kept)


def numbered(*columns: list[float]) -> np.ndarray:
    return np.column_stack([np.arange(1.0, len(columns[0]) + 1), *columns])


@pytest.mark.parametrize("seed", range(60))
def test_keeps_exactly_what_the_oracle_keeps(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.integers(0, random.choice([3, 1000]), (random.integers(0, 200), 7)).astype(float)
    rows[random.random(rows.shape) < random.choice([0.0, 0.3, 1.0])] = NAN
    rows[:, 0] = np.arange(len(rows))
    tracked, sparse = [[1], [2, 3], [4]], [5, 6]
    width = int(random.choice([1, 2, 4, 16, 256]))
    kept = decimate(rows, width, tracked=tracked, sparse=sparse)
    assert kept[:, 0].tolist() == [float(index) for index in oracle(rows, width, tracked, sparse)]


def test_keeps_first_last_and_maximum_of_each_bucket() -> None:
    rows = numbered([1, 5, 2, 3, 9, 8, 7, 6])
    assert decimate(rows, 4, tracked=[[1]])[:, 0].tolist() == [1, 2, 4, 5, 8]


def test_keeps_the_last_special_row_of_each_bucket() -> None:
    rows = numbered([9, 1, 1, 1, 1, 9, 1, 1, 1])
    special = np.isin(rows[:, 0], [2, 3, 7])
    assert decimate(rows, 4, tracked=[[1]], special=special)[:, 0].tolist() == [1, 3, 4, 5, 6, 7, 8, 9]
    assert decimate(rows, 4, tracked=[[1]], special=special & False)[:, 0].tolist() == [1, 4, 5, 6, 8, 9]


def test_a_group_is_one_series_whose_highest_value_counts() -> None:
    rows = numbered([1, 5, 2, 3], [0, 0, 9, 0])
    assert decimate(rows, 4, tracked=[[1, 2]])[:, 0].tolist() == [1, 3, 4]
    assert decimate(rows, 4, tracked=[[1], [2]])[:, 0].tolist() == [1, 2, 3, 4]


def test_of_equal_maxima_the_first_is_kept() -> None:
    assert decimate(numbered([1, 7, 7, 7, 1]), 8, tracked=[[1]])[:, 0].tolist() == [1, 2, 5]


def test_unknown_values_are_no_maxima() -> None:
    assert decimate(numbered([NAN] * 5), 8, tracked=[[1]])[:, 0].tolist() == [1, 5]
    assert decimate(numbered([NAN, NAN, -3, NAN, NAN]), 8, tracked=[[1]])[:, 0].tolist() == [1, 3, 5]


def test_the_last_reading_of_a_sparse_column_stays() -> None:
    rows = numbered([1.0] * 6, [NAN, 10, NAN, 20, NAN, NAN])
    assert decimate(rows, 8, tracked=[], sparse=[2])[:, 0].tolist() == [1, 4, 6]


def test_rows_are_kept_unchanged() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 3))
    rows[::7, 1] = NAN
    kept = decimate(rows, 16, tracked=[[1]])
    originals = {row.tobytes() for row in rows}
    assert len(kept) < len(rows) and all(row.tobytes() in originals for row in kept)


def test_width_never_shrinks_and_doubles_with_the_length() -> None:
    widths = [bucket_width(rows) for rows in range(0, 40 * DENSE_ROWS, 97)]
    assert widths == sorted(widths)
    for doublings in range(1, 12):
        threshold = DENSE_ROWS << doublings
        assert (bucket_width(threshold - 1), bucket_width(threshold)) == (1 << (doublings - 1), 1 << doublings)


@pytest.mark.parametrize("chunk_rows", [2048, 8192])
def test_a_million_rows_keep_the_peak_and_stay_few(chunk_rows: int) -> None:
    random = np.random.default_rng(3)
    rows = np.column_stack([np.arange(1_000_000.0), *random.random((4, 1_000_000))])
    peak = 777_777
    rows[peak, 2] = 2.0
    kept = [
        decimate(rows[start : start + chunk_rows], bucket_width(start), tracked=[[1], [2], [3], [4]])
        for start in range(0, len(rows), chunk_rows)
    ]
    steps = np.concatenate(kept)[:, 0]
    assert peak in steps and steps[0] == 0 and steps[-1] == len(rows) - 1
    assert np.all(np.diff(steps) > 0)
    # At most two ends and four maxima of each bucket; each doubling of the run adds as many buckets as there were
    # rows before the first.
    assert len(steps) <= 6 * 4096 * 8 + 2 * 4096
