"""A report for people: on any terminal, with any names, of any recording."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from timelines import Line, step, timeline

from kerasmemwatch.analysis.leak_words import THEIRS
from kerasmemwatch.records.growth import LeakFinding, TraceLink
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.rows import to_samples
from kerasmemwatch.records.run import DeviceInfo, RunInfo
from kerasmemwatch.records.samples import Column, Samples
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.reports.report import Report, make_report
from kerasmemwatch.reports.text.report_text import plain_text, print_report, renderable
from kerasmemwatch.sampling.probe_set import BASE_COLUMNS
from kerasmemwatch.units import GIB, MIB

NAN = float("nan")
EVIL = "[red]x[/]\x1b[31m\x1b]0;title\x07\r\n\b\u202e<b>é"


def samples(num_rows: int = 40, *, devices: int = 1, known: bool = True) -> Samples:
    layout = (
        *BASE_COLUMNS,
        *(Column(name, devices) for name in ("device_in_use_bytes", "device_peak_bytes", "device_between_peak_bytes")),
        Column("host_rss_bytes"),
        *(Column(name, devices) for name in ("nvml_used_bytes", "nvml_total_bytes", "nvml_process_bytes")),
    )
    steps = np.arange(1.0, num_rows + 1)
    device = np.full((num_rows, 3 * devices), MIB * 10 + 100 * steps[:, None] if known else NAN)
    driver = np.full((num_rows, 3 * devices), MIB * 20.0 if known else NAN)
    rss = GIB + 1000 * steps if known else np.full(num_rows, NAN)
    return to_samples([(layout, np.column_stack([steps, steps, 0 * steps, 0 * steps, steps, device, rss, driver]))])


def layers(count: int) -> tuple[LayerMemory, ...]:
    return tuple(
        LayerMemory(f"block/dense_{i}", "Dense", weights_bytes=1000 + i, optimizer_bytes=0, other_bytes=None)
        for i in range(count)
    )


def report(
    found: Samples | None = None,
    rows: Sequence[LayerMemory] = (),
    *,
    name: str = "run",
    devices: Sequence[DeviceInfo] = (DeviceInfo("GPU:0", limit_bytes=GIB),),
    steps: Sequence[TracedStep] = (),
    **about: object,
) -> Report:
    run = RunInfo(name, 0.0, devices=tuple(devices), **about)  # type: ignore[arg-type]
    return make_report(run, samples() if found is None else found, tuple(rows), steps)


def traced(paths: Sequence[str], **changed: Any) -> list[TracedStep]:
    """A step in which each layer has weights and an activation."""
    lines: list[Line] = [(1000, -1, 9, path, "weights", "between", "") for path in paths]
    lines += [(MIB, 1, 8, path, "activations", "forward", f"model/{path}/{path}") for path in paths]
    lines += [(10**5, -1, 9, "unattributed", "unattributed", "between", "")]
    return [step(timeline(lines, 9), **changed)]


def everything_evil(is_traced: bool = False) -> Report:
    return report(
        rows=(LayerMemory(EVIL, EVIL, 1, 1, 1, other_bytes=1),),
        name=EVIL,
        devices=(DeviceInfo(EVIL, "partial", 5, GIB, 0.5, EVIL),),
        tags=(EVIL,),
        steps=traced([EVIL, f"a/{EVIL}", f"a/{EVIL}/b"], notes=(EVIL,), mode=EVIL) if is_traced else (),
        notes=(EVIL, f"log dir: {EVIL}"),
        drivers=({"name": EVIL},),
        host={"limit_bytes": GIB, "limit_source": EVIL},
    )


DEEP_LEAK = LeakFinding(
    "models_accumulate",
    "evidence",
    None,
    None,
    None,
    "train.py:1",
    "fix",
    trace=(
        TraceLink(f"global models of module {'x' * 60}", "expected"),
        TraceLink(f".{'y' * 70}", "suspect"),
        *(TraceLink(f"['{depth}']") for depth in range(60)),
    ),
)
ALL = pytest.mark.parametrize("everything", [False, True])
REPORTS = {
    "usual": report(rows=layers(5)),
    "empty": report(to_samples([])),
    "one row": report(samples(1)),
    "one layer": report(rows=layers(1)),
    "500 layers": report(rows=layers(500)),
    "unknown": report(samples(known=False), drivers=({"name": "H200"},)),
    "no device": report(samples(devices=0), devices=()),
    "four devices": report(samples(devices=4), devices=[DeviceInfo(f"GPU:{i}") for i in range(4)]),
    "partial": report(devices=(DeviceInfo("CPU:0", "partial", 262_144, None, 0.123, "Do this."),)),
    "run maxima": report(configuration={"reset_peak": False, "sample_every": 7}),
    "drivers": report(drivers=({"name": "H200"},), host={"limit_bytes": GIB, "limit_source": "cgroup v2"}),
    "evil": everything_evil(),
    "evil traced": everything_evil(is_traced=True),
    "one layer traced": report(steps=traced(["dense"])),
    "500 layers traced": report(rows=layers(500), steps=traced([f"block/dense_{i}" for i in range(500)])),
    "nested traced": report(steps=traced([f"a/b{i}/{name * 10}" for i in range(9) for name in "xy"])),
    "deep traced": report(steps=traced(["/".join("a" * depth) for depth in range(1, 100)])),
    "long traced": report(steps=traced(["z" * 300, "y" * 150])),
    "deep leak": replace(report(), leaks=(DEEP_LEAK,)),
    "long name": report(name="x" * 200, rows=[LayerMemory("y" * 300, "Z" * 100, 1)]),
}


@ALL
@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("name", REPORTS)
def test_every_report_fits_every_width(name: str, width: int, everything: bool) -> None:
    lines = plain_text(REPORTS[name], everything=everything, width=width).splitlines()
    assert lines and all(len(line) <= width for line in lines)
    assert not any(line.endswith(" ") for line in lines)


def test_causes_in_tensorflow_are_listed_apart() -> None:
    theirs = replace(DEEP_LEAK, cause="graphs_pinned", trace=(), whose="TensorFlow's")
    text = plain_text(replace(report(), leaks=(theirs, DEEP_LEAK)), width=100)
    assert 0 < text.index("models_accumulate") < text.index(THEIRS) < text.index("graphs_pinned")
    assert THEIRS not in plain_text(REPORTS["deep leak"], width=100)


@pytest.mark.parametrize("width", [60, 100])
def test_a_trace_is_wrapped_and_keeps_its_indentation(width: int) -> None:
    text = plain_text(REPORTS["deep leak"], width=width)
    assert all("".join(link.words.split()) in "".join(text.split()) for link in DEEP_LEAK.trace)
    lines = text.splitlines()
    [marked] = [number for number, line in enumerate(lines) if "CHANGE THIS" in line]
    first = next(number for number, line in enumerate(lines) if line.lstrip().startswith("->"))
    assert first <= marked and all(line.startswith(" " * 7) for line in lines[first : marked + 1])


def test_the_usual_report_says_the_important_things() -> None:
    text = " ".join(str(report(rows=layers(3))).split())
    assert "Memory of run run" in text
    assert "40 steps in 39.0 s; samples: 40 train" in text
    assert "Device peak 10.0 MiB" in text and "GPU:0, step 40 (train, epoch 1)" in text
    assert "exact count of every allocation" in text
    assert "GPU:0 limit" in text and "1.0% of it" in text
    assert "Host RSS" in text and "1.0 GiB" in text
    assert "Too short to tell: growth of GPU:0 in use shows only from the second epoch on" in text
    assert "block/dense_2" in text


def test_an_empty_report_says_how_to_record() -> None:
    text = str(make_report(RunInfo("", NAN), to_samples([])))
    assert "(none yet)" in text and "callbacks=[MemoryWatch()]" in text
    assert len(text.splitlines()) == 1


def test_what_is_unknown_is_called_unknown_and_never_zero() -> None:
    text = plain_text(REPORTS["unknown"], everything=True)
    assert "Device peak" in text and text.count("unknown") >= 3
    assert "nan" not in text.lower().replace("unknown", "") and " 0 B" not in text


def test_a_peak_between_batches_is_told() -> None:
    layout = (
        *BASE_COLUMNS,
        *(Column(n, 1) for n in ("device_in_use_bytes", "device_peak_bytes", "device_between_peak_bytes")),
    )
    found = to_samples([(layout, np.array([[1, 1, 0, 0, 1, 5, 6, 7.0]]))])
    assert "between two batches" in str(report(found))


def test_briefly_the_biggest_layers_are_shown_and_the_rest_added_up() -> None:
    text = plain_text(report(rows=layers(500)))
    assert "block/dense_499" in text and "block/dense_3 " not in text
    hidden = sum(1000 + i for i in range(492))
    assert f"and 492 more with {hidden / 1024:.1f} KiB" in text
    assert len(text.splitlines()) < 45


def test_with_everything_every_layer_is_shown_in_the_models_order() -> None:
    text = plain_text(report(rows=layers(500)), everything=True)
    places = [text.index(f"block/dense_{i} ") for i in range(500)]
    assert places == sorted(places) and "more with" not in text


def test_briefly_there_are_few_notes() -> None:
    notes = tuple(f"note {i}" for i in range(30))
    assert "note 29" not in plain_text(report(notes=notes)) and "more notes" in plain_text(report(notes=notes))
    assert "note 29" in plain_text(report(notes=notes), everything=True)


def test_partial_counting_is_stated_with_its_share_and_the_remedy() -> None:
    text = plain_text(REPORTS["partial"])
    assert "only allocations of 256.0 KiB or more are counted, 12.3% of the model's variable bytes" in " ".join(
        text.split()
    )
    # In the first line, since no figure below is whole.
    assert text.splitlines()[0] == "CPU:0 is counted in part: do this."


def test_a_partial_count_is_no_headline() -> None:
    text = plain_text(REPORTS["partial"])
    assert "Device peak (partial)  at least 10.0 MiB" in text
    assert "CPU:0 in use           at least 10.0 MiB" in text
    assert "device peak (partial) over steps" in text
    assert "CPU:0 in use (partial)" in text
    nothing = samples(3, known=True)
    for name in ("device_peak_bytes", "device_between_peak_bytes", "device_in_use_bytes"):
        nothing[name][:] = 0
    text = plain_text(report(nothing, devices=(DeviceInfo("CPU:0", "partial", 262_144),)))
    assert "Device peak (partial)  unknown" in text and " 0 B " not in text.split("device peak (partial) over")[0]


def test_an_exact_device_beside_a_partial_one_keeps_its_peak() -> None:
    devices = (DeviceInfo("GPU:0"), DeviceInfo("CPU:0", "partial", 262_144, remedy="Do this."))
    found = samples(devices=2)
    found["device_peak_bytes"][:, 0] *= 2
    text = plain_text(report(found, devices=devices))
    assert text.startswith("CPU:0 is counted in part: do this.")
    assert "Device peak 20.0 MiB" in " ".join(text.split()) and "Device peak (partial)" not in text


def test_an_allocator_that_cannot_be_read_is_told_first() -> None:
    note = "Not measured (tensorflow): Device memory is unknown: no allocator keeps statistics. Do this."
    text = plain_text(report(samples(devices=0), devices=(), notes=(note,)))
    assert text.startswith(note.split("statistics")[0])
    assert "no step has been traced yet" not in text


def test_run_maxima_are_labelled() -> None:
    text = plain_text(REPORTS["run maxima"])
    assert "run maxima" in text and "7 steps" in text


@ALL
@pytest.mark.parametrize("is_traced", [False, True])
def test_control_characters_never_reach_a_terminal(everything: bool, is_traced: bool) -> None:
    text = plain_text(everything_evil(is_traced), everything=everything)
    assert {char for char in text if not char.isprintable()} <= {"\n"}


@ALL
def test_markup_in_names_is_text(everything: bool) -> None:
    text = plain_text(everything_evil(), everything=everything, width=200)
    traced_text = plain_text(everything_evil(is_traced=True), everything=everything, width=200)
    # The same without the layer and its class; and the step's mode, note, operation, owner, and three layers.
    assert traced_text.count("[red]x[/]") >= 12
    # The run, the device (three times), the driver, the layer and its class, the limit's source, the notes.
    assert text.count("[red]x[/]") >= 9
    terminal = Console(
        file=io.StringIO(), width=200, force_terminal=True, color_system="truecolor", legacy_windows=False
    )
    terminal.print(renderable(everything_evil(), everything=everything))
    terminal.print(renderable(everything_evil(is_traced=True), everything=everything))
    assert "\x1b[31m" not in terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b]0;" not in terminal.file.getvalue()  # type: ignore[attr-defined]


class Ascii(io.StringIO):
    """Standard output that can write ASCII only, such as under LANG=C."""

    encoding = "ascii"  # type: ignore[assignment]

    def write(self, text: str) -> int:
        text.encode("ascii")
        return super().write(text)


@ALL
@pytest.mark.parametrize("name", REPORTS)
def test_an_ascii_output_gets_ascii(name: str, everything: bool) -> None:
    file = Ascii()
    print_report(REPORTS[name], file, everything=everything)
    assert file.getvalue().strip()


@pytest.mark.parametrize("name", ["usual", "drivers", "500 layers"])
def test_str_is_the_same_ascii_whatever_standard_output_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = str(REPORTS[name])
    text.encode("ascii")
    for file in (Ascii(), io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), None):
        monkeypatch.setattr("sys.stdout", file)
        assert str(REPORTS[name]) == text


def test_str_keeps_the_characters_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    named = replace(report(), run=replace(report().run, name="\N{GREEK SMALL LETTER ALPHA}"))
    monkeypatch.setattr("sys.stdout", Ascii())
    assert "run \N{GREEK SMALL LETTER ALPHA}" in str(named)
    file = Ascii()
    print_report(named, file)
    assert "run ?" in file.getvalue()


def test_a_utf8_output_gets_blocks() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    print_report(report(), file)
    file.flush()
    assert "\N{FULL BLOCK}" in file.buffer.getvalue().decode()  # type: ignore[attr-defined]


def test_a_terminal_gets_colours_and_a_file_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        encoding = "utf-8"  # type: ignore[assignment]

        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    terminal, file = Terminal(), io.StringIO()
    print_report(report(), terminal)
    print_report(report(), file)
    assert "\x1b[1m" in terminal.getvalue() and "\x1b" not in file.getvalue()
