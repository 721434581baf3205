"""A death in words: the note of at most eight lines, the headline, and what fitted afterwards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kerasmemwatch.analysis.death_words import MAX_LINES, death_headline, death_lines, death_note
from kerasmemwatch.analysis.key_figures import headline
from kerasmemwatch.out_of_memory.suggestions import suggest
from kerasmemwatch.records.death import Death, Request, Suggestion
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.rows import ALWAYS, to_samples
from kerasmemwatch.records.run import DeviceInfo, RunInfo
from kerasmemwatch.records.samples import Column
from kerasmemwatch.reports.html.page import html_page
from kerasmemwatch.reports.report import make_report
from kerasmemwatch.storage.codecs.run_codec import decode_run, encode_run
from kerasmemwatch.units import MIB

DEATH = Death(
    step=7,
    stage="train",
    epoch=0,
    error="ResourceExhaustedError",
    request=Request("op", 32 * MIB, shape=(64, 131072), dtype="float", op="model/bn2/Mul", device="GPU:0"),
    layer="bn2",
    class_name="BatchNormalization",
    phase="backward",
    mode="graph",
    batch=64,
    in_use_bytes=180 * MIB,
    limit_bytes=200 * MIB,
    by_category={"activations": 96 * MIB, "weights": MIB},
    layers=(LayerMemory("bn2", "BatchNormalization", total_bytes=64 * MIB),),
    figures_from="traced step 2, scaled from batch 4 to 64",
    peak_bytes=300 * MIB,
    suggestions=(Suggestion("batch_size=32", "batch_size=32", 150 * MIB, True), Suggestion("mixed precision", "", 9)),
)


def test_the_note_tells_what_where_and_what_now() -> None:
    assert death_note(DEATH, "logs/run/out-of-memory.html").splitlines() == [
        "kerasmemwatch: training step 7, epoch 1 ran out of memory on GPU:0, with a batch of 64.",
        "  Asked for: 32.0 MiB (33,554,432 bytes) by layer bn2 in its backward pass, operation model/bn2/Mul, "
        "float[64, 131072].",
        "  In use: at most 180.0 MiB of 200.0 MiB in this step (measured); 12.0 MiB were missing; the whole step needs "
        "about 300.0 MiB (estimate).",
        "  Likely to fit (estimate): batch_size=32.",
        "  Or (estimates): mixed precision, saves about 9 B.",
        "  Alive then (traced step 2, scaled from batch 4 to 64): activations 96.0 MiB, weights 1.0 MiB.",
        "  Largest layers: bn2 64.0 MiB.",
        "  Full report: logs/run/out-of-memory.html",
    ]


def test_the_note_never_has_more_lines() -> None:
    assert len(death_note(replace(DEATH, layer="a\nb\nc"), "x").splitlines()) == MAX_LINES
    assert len(death_note(Death(1, "odd"), "x").splitlines()) <= MAX_LINES


def test_fragmentation_is_told_apart() -> None:
    split = replace(DEATH, in_use_bytes=150 * MIB)
    assert split.is_fragmented and split.missing_bytes is None
    assert "50.0 MiB were free, but in no piece that is large enough" in death_note(split)
    assert not DEATH.is_fragmented and DEATH.missing_bytes == 12 * MIB
    assert not replace(split, limit_bytes=None).is_fragmented


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "layer bn2 asked for 32.0 MiB for a batch of 64, 12.0 MiB more than was free."),
        ({"class_name": "", "layer": "loss"}, "the loss asked for 32.0 MiB for a batch of 64, 12.0 MiB more than"),
        ({"layer": ""}, "operation model/bn2/Mul asked for"),
        ({"request": Request("program", None, "195.04MiB")}, "the step's XLA program asked for 195.04MiB"),
        ({"request": Request("op")}, "a batch of 64 did not fit."),
        ({"request": Request("op"), "batch": None}, "its batch did not fit."),
        ({"request": Request("host", 8)}, "Python or numpy asked for 8 B"),
    ],
)
def test_the_headline(changed: dict[str, object], words: str) -> None:
    assert f"Step 7 ran out of memory: {words}" in death_headline(replace(DEATH, **changed))  # type: ignore[arg-type]


def test_each_try_has_a_line_and_the_last_says_what_fitted() -> None:
    lines = death_lines((replace(DEATH, batch=128), replace(DEATH, step=8, followed=True, fitted_batch=32)))
    assert lines[0].startswith("Step 8 ran out of memory") and lines[0].endswith("Afterwards a batch of 32 fitted.")
    assert "Before: Step 7 ran out of memory" in lines[-1] and "batch of 128" in lines[-1]
    assert death_lines(()) == ()


# -- what would help -------------------------------------------------------------------------------------------

DIED = Death(
    7,
    "train",
    batch=64,
    limit_bytes=40 * MIB,
    mode="graph",
    by_category={"activations": 64 * MIB},
    layers=(LayerMemory("a/dense", "Dense", activations_bytes=64 * MIB),),
)


def needs(rows: int) -> int:
    return MIB + rows * MIB


def test_the_largest_batch_that_fits_by_the_estimate_comes_first() -> None:
    found = suggest(DIED, needs)
    # 33 MiB for 32 rows, and the margin: 38 MiB.
    first = found[0]
    assert first.code == "batch_size=32" and first.fits and first.saves_bytes == 32 * MIB
    assert "gradient_accumulation_steps=2" in first.words
    # Each other change with its saving, the largest first; none of them is said to fit that does not.
    assert [each.saves_bytes for each in found[1:3]] == [64 * MIB, 32 * MIB]
    assert "RematScope for dense" in found[1].words and found[1].fits
    assert "mixed precision" in found[2].words and found[2].fits
    assert found[3].code == "jit_compile=True" and found[3].saves_bytes is None


def test_a_tighter_limit_takes_a_smaller_batch() -> None:
    assert suggest(replace(DIED, limit_bytes=20 * MIB), needs)[0].code == "batch_size=16"


def test_what_is_known_not_to_fit_comes_last_and_says_so() -> None:
    found = suggest(replace(DIED, limit_bytes=MIB), needs)
    assert [each.fits for each in found] == [None, False, False, False]
    assert found[1].code == "batch_size=1"
    note = death_note(replace(DEATH, suggestions=found[1:]))
    assert "Too little by itself (estimate): batch_size=1" in note and "Likely to fit" not in note


def test_where_memory_is_in_pieces_half_of_the_limit_counts() -> None:
    split = replace(DIED, limit_bytes=60 * MIB, in_use_bytes=MIB, request=Request("op", 2 * MIB))
    assert split.is_fragmented and suggest(split, needs)[0].code == "batch_size=16"
    block = replace(DIED, limit_bytes=60 * MIB, request=Request("program", 100 * MIB, device="CPU:0"))
    assert suggest(block, needs)[0].code == "batch_size=16"
    # A GPU's memory is one region.
    whole = replace(block, batch=128, limit_bytes=80 * MIB, request=Request("program", 100 * MIB, device="GPU:0"))
    assert suggest(whole, needs)[0].code == "batch_size=64"


def test_a_batch_that_is_no_power_of_two() -> None:
    first = suggest(replace(DIED, batch=100, limit_bytes=90 * MIB), needs)[0]
    assert first.code == "batch_size=64" and "gradient_accumulation_steps=2" in first.words


def test_without_figures_half_the_batch_is_no_promise() -> None:
    first, *others = suggest(DIED, None)
    assert first.code == "batch_size=32" and first.fits is None and "unknown" in first.words
    assert all(each.saves_bytes is None for each in others)
    assert suggest(replace(DIED, batch=None), needs)[0].words.startswith("half the batch")
    assert "batch" not in suggest(replace(DIED, batch=1), needs)[0].words


def test_what_does_not_apply_is_not_suggested() -> None:
    found = suggest(replace(DIED, stage="predict", mode="xla"), needs, is_mixed=True)
    assert [each.code for each in found] == ["batch_size=32", "jit_compile=False"]
    assert "accumulation" not in found[0].words


def test_a_data_set_on_the_device_is_told_with_its_size() -> None:
    found = suggest(DIED, needs, data_bytes=70 * MIB)
    assert "data set in host memory" in found[1].words and found[1].saves_bytes == 70 * MIB


# -- reports ---------------------------------------------------------------------------------------------------


def test_text_page_and_tiles_begin_with_the_death() -> None:
    limits = (DeviceInfo("GPU:0", limit_bytes=200 * MIB),)
    evil = replace(DEATH, layer="<b>bn2</b>", in_use_bytes=None)
    run = RunInfo("run", 0.0, devices=limits, deaths=(evil,))
    rows = np.array([[7, 7, 0, 0, 1.0, 0, 150 * MIB, 180 * MIB, 180 * MIB, 0]], float)
    layout = tuple(Column(each.name, 1 if each.width == 0 else each.width, each.integer) for each in ALWAYS)
    report = make_report(run, to_samples([(layout, rows)]))
    text = " ".join(str(report).split())
    assert text.startswith("Step 7 ran out of memory: layer <b>bn2</b> asked for 32.0 MiB for a batch of 64.")
    assert "the peak was 90.0% of it; step 7 asked for 32.0 MiB more in vain" in text
    assert "did not end: an exception left it" not in text
    page = html_page(report)
    assert page.index('<section id="death"') < page.index('<dl class="tiles">')
    assert "layer &lt;b&gt;bn2&lt;/b&gt; asked for" in page and "<b>bn2</b>" not in page
    [tile] = [tile for tile in headline(report) if tile.label == "Share of the device limit"]
    assert tile.tone == "warning" and "asked for 32.0 MiB more in vain" in tile.detail


def test_a_death_is_stored_with_the_run() -> None:
    run = RunInfo("run", 0.0, deaths=(replace(DEATH, fitted_batch=8, followed=True), DEATH))
    assert decode_run(encode_run(run, ()))[0].deaths == run.deaths
