"""What the demo says about the table of layers."""

from __future__ import annotations

from dataclasses import replace

from kerasmemwatch.commands.demo import reading
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.peaks import Peak
from kerasmemwatch.records.rows import to_samples
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.reports.report import Report

KIB = 1024


def report(*rows: LayerMemory, requested_bytes: int | None = 1000 * KIB, added_bytes: int | None = 600 * KIB) -> Report:
    peak = Peak(requested_bytes=requested_bytes, by_layer=rows)
    layers = tuple(replace(row, added_bytes=added_bytes) for row in rows)
    return Report(RunInfo("run", 0.0), to_samples(()), peak, layers)


DENSE = LayerMemory("head", "Dense", weights_bytes=100 * KIB, optimizer_bytes=200 * KIB, total_bytes=300 * KIB)
SMALL = LayerMemory("stem", "Dense", weights_bytes=KIB, total_bytes=KIB)
PIPELINE = LayerMemory("input pipeline", "", inputs_bytes=600 * KIB, total_bytes=600 * KIB)


def test_the_layer_that_holds_most_is_explained() -> None:
    text = " ".join(reading(report(PIPELINE, DENSE, SMALL)).split())
    assert "head holds 300.0 KiB, 30.0% of" in text
    assert "200.0 KiB optimizer, 100.0 KiB weights." in text
    assert "would be 600.0 KiB lower" in text


def test_what_is_unknown_is_not_said() -> None:
    assert "lower" not in reading(report(DENSE, added_bytes=None))
    assert reading(report(PIPELINE)) == ""
    assert reading(report(DENSE, requested_bytes=None)) == ""
    assert reading(report()) == ""
