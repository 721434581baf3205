"""The columns of layer tables: one for each category, each with a heading that fits a narrow column."""

from __future__ import annotations

from runs import small_report

from kerasmemwatch.analysis.layer_columns import LayerColumn, layer_columns, narrow_heading
from kerasmemwatch.records.categories import CATEGORIES


def columns() -> list[LayerColumn]:
    return layer_columns(small_report(), ())


def test_every_category_has_a_column() -> None:
    keys = [column.key for column in columns()]
    assert {f"{name}_bytes" for name in CATEGORIES} <= set(keys) and len(keys) == len(set(keys))


def test_a_heading_in_a_narrow_column_has_the_same_words_in_short_lines() -> None:
    for column in columns():
        assert narrow_heading(column).replace("-\n", "").replace("\n", " ") == column.label
        assert max(map(len, narrow_heading(column).split("\n"))) <= len("backward")
