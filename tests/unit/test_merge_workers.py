"""Several workers' recordings as one: which belong together, and what they give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from runs import two_device_steps
from timelines import step, timeline

from kerasmemwatch.analysis.merge_workers import absences, gather, merge
from kerasmemwatch.recording import Recording
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.rows import as_ended, to_samples
from kerasmemwatch.records.run import DeviceInfo, RunInfo, WorkerInfo
from kerasmemwatch.records.samples import Column, Samples
from kerasmemwatch.sampling.probe_set import BASE_COLUMNS

NAN = math.nan
EVIL = "[red]x[/]\x1b[31m\n../<b>"
LAYOUT = (
    *BASE_COLUMNS,
    *(Column(name, 1) for name in ("device_in_use_bytes", "device_peak_bytes", "device_between_peak_bytes")),
    Column("host_rss_bytes"),
)


def recorded(
    index: int,
    steps: Sequence[float],
    *,
    created: float = 0.0,
    name: str = "mine",
    kind: str = "worker",
    count: int = 2,
    cluster: str = "c",
    stage: int = 0,
    epoch: float = 0.0,
    scale: float = 1.0,
    **about: Any,
) -> Recording:
    """A worker's recording: its figures at step ``s`` are multiples of ``s``, sampled ``s`` seconds after its begin."""
    s = np.asarray(steps, float)
    ones = np.ones(len(s))
    rows = np.column_stack(
        [s, s, epoch * ones, stage * ones, created + s, *(s * scale * factor for factor in (1, 3, 2)), s * scale * 10]
    )
    worker = WorkerInfo(cluster, kind, index, count)
    about = {"devices": (DeviceInfo("CPU:0"),), **about}
    run = RunInfo(f"{name}-{kind}-{index}", created, worker=worker, **about)
    return Recording(run, to_samples([(LAYOUT, rows)]))


def with_devices(rows: Sequence[Sequence[float]], drivers: Sequence[Sequence[float]]) -> Samples:
    """Rows of a step and the peak of each device, with what the driver says of each GPU."""
    widths = len(rows[0]) - 1, len(drivers[0])
    names = ("device_peak_bytes", "device_between_peak_bytes")
    layout = (*BASE_COLUMNS, *(Column(name, widths[0]) for name in names), Column("nvml_used_bytes", widths[1]))
    values = [
        [row[0], row[0], 0, 0, row[0], *row[1:], *[NAN] * widths[0], *own]
        for row, own in zip(rows, drivers, strict=True)
    ]
    return to_samples([(layout, np.array(values, float))])


def merged(*recordings: Recording) -> Recording:
    return Recording(**vars(merge(recordings)), workers=recordings)


def gathered(chosen: Recording, *others: Recording) -> tuple[list[str], list[str]]:
    members, left_out = gather(chosen, [(other.run, lambda other=other: other) for other in others])
    return [one.run.name for one in members], [run.name for run in left_out]


# -- rows ------------------------------------------------------------------------------------------------------


def test_a_step_that_an_exception_left_in_one_worker_did_not_end() -> None:
    def worker(index: int, ended: Sequence[float]) -> Recording:
        whole = recorded(index, [1, 2, 3])
        columns = {**whole.samples, "ended": as_ended(np.array(ended, float))}
        return Recording(whole.run, Samples(columns))

    found = merged(worker(0, [1, 0, 1]), worker(1, [1, 1, 0])).samples["ended"]
    assert found.tolist() == [True, False, False]
    # Of a step that one worker lacks, the other one says it.
    assert merged(worker(0, [1, 1, 0]), recorded(1, [1, 2])).samples["ended"].tolist() == [True, True, False]


def test_workers_stand_side_by_side() -> None:
    samples = merged(recorded(0, [1, 2, 3]), recorded(1, [1, 2, 3], scale=100)).samples
    assert samples["step"].tolist() == samples["train_step"].tolist() == [1, 2, 3]
    assert samples["device_in_use_bytes"].tolist() == [[1, 100], [2, 200], [3, 300]]
    assert samples["device_peak_bytes"].tolist() == [[3, 300], [6, 600], [9, 900]]
    assert samples["host_rss_bytes"].tolist() == [1000, 2000, 3000]
    whole = {name for name, values in samples.items() if values.dtype == np.int64}
    assert whole == set(samples) - {"epoch", "stage", "time_s", "ended"}


@pytest.mark.parametrize(
    ("first", "second", "steps", "in_use", "rss"),
    [
        # killed
        ([1, 2, 3, 4], [1, 2], [1, 2, 3, 4], [[1, 10], [2, 20], [3, NAN], [4, NAN]], [100, 200, 30, 40]),
        ([1], [1, 2, 3], [1, 2, 3], [[1, 10], [NAN, 20], [NAN, 30]], [100, 200, 300]),
        # sampled differently
        ([2, 4, 6], [3, 6], [2, 3, 4, 6], [[2, NAN], [NAN, 30], [4, NAN], [6, 60]], [20, 300, 40, 600]),
        # killed before its first row
        ([1, 2], [], [1, 2], [[1, NAN], [2, NAN]], [10, 20]),
        ([], [1, 2], [1, 2], [[NAN, 10], [NAN, 20]], [100, 200]),
        ([], [], [], [], []),
    ],
)
def test_what_a_worker_lacks_is_unknown(
    first: list[float], second: list[float], steps: list[float], in_use: list[list[float]], rss: list[float]
) -> None:
    samples = merged(recorded(0, first), recorded(1, second, scale=10)).samples
    assert samples["step"].tolist() == steps and (np.diff(samples["step"]) > 0).all()
    np.testing.assert_array_equal(samples["device_in_use_bytes"], np.reshape(in_use, (len(steps), 2)))
    assert samples["host_rss_bytes"].tolist() == rss and samples["host_rss_bytes"].dtype == np.int64
    complete = bool(np.isfinite(np.asarray(in_use, float)).all())
    assert (samples["device_in_use_bytes"].dtype == np.int64) is complete


def test_three_workers_of_different_devices() -> None:
    gpu = recorded(0, [1, 2], kind="chief", count=3)
    wide = with_devices([[2, 5, 7], [3, 6, 8]], [[11], [12]])
    devices = (DeviceInfo("GPU:0", limit_bytes=99), DeviceInfo("CPU:0", "partial", 256))
    two = replace(recorded(0, [], count=3, devices=devices, drivers=({"name": "H200"},)), samples=wide)
    # Its devices are known, and no row of it is.
    none = recorded(1, [], count=3)
    whole = merged(gpu, two, none)
    assert whole.run.devices == (
        DeviceInfo("chief:0/CPU:0"),
        DeviceInfo("worker:0/GPU:0", limit_bytes=99),
        DeviceInfo("worker:0/CPU:0", "partial", 256),
        DeviceInfo("worker:1/CPU:0"),
    )
    assert whole.run.drivers == ({"name": "worker:0/H200"},)
    peaks = [[3, NAN, NAN, NAN], [6, 5, 7, NAN], [NAN, 6, 8, NAN]]
    np.testing.assert_array_equal(whole.samples["device_peak_bytes"], peaks)
    np.testing.assert_array_equal(whole.samples["device_in_use_bytes"][:, 1:], np.full((3, 3), NAN))
    np.testing.assert_array_equal(whole.samples["nvml_used_bytes"], [[NAN], [11], [12]])
    assert (whole.report.peak.bytes, whole.report.peak.device) == (8, "worker:0/CPU:0")


def test_columns_of_devices_that_are_gone_do_not_shift_the_others() -> None:
    resumed = replace(recorded(0, []), samples=with_devices([[1, 50, 70]], [[]]))
    whole = merged(resumed, recorded(1, [1]))
    assert [device.name for device in whole.run.devices] == ["worker:0/CPU:0", "worker:0/device:1", "worker:1/CPU:0"]
    assert whole.samples["device_peak_bytes"].tolist() == [[50, 70, 3]]
    assert whole.report.peak.device == "worker:0/device:1"


def test_of_what_is_no_measure_the_first_worker_with_the_row_decides() -> None:
    first = recorded(0, [1, 2], stage=1, epoch=NAN)
    second = recorded(1, [2, 3], epoch=4.0, created=0.5)
    samples = merged(first, second).samples
    assert samples["stage"].tolist() == ["test", "test", "train"]
    np.testing.assert_array_equal(samples["epoch"], [NAN, NAN, 4.0])
    assert samples["time_s"].tolist() == [1.0, 2.5, 3.5]  # the latest


def test_gaps_that_another_worker_fills_are_whole_numbers_again() -> None:
    def with_rss(index: int, rss: list[float]) -> Recording:
        made = recorded(index, [1, 2])
        return replace(made, samples=replace(made.samples, columns={**made.samples, "host_rss_bytes": np.array(rss)}))

    rss = merged(with_rss(0, [5, NAN]), with_rss(1, [4, 6])).samples["host_rss_bytes"]
    assert rss.dtype == np.int64 and rss.tolist() == [5, 6]
    np.testing.assert_array_equal(
        merged(with_rss(0, [5, NAN]), with_rss(1, [4, NAN])).samples["host_rss_bytes"], [5, NAN]
    )


@pytest.mark.parametrize("seed", range(10))
def test_every_workers_rows_are_in_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    parts = [
        recorded(index, np.sort(random.choice(50, random.integers(1, 50), replace=False)) + 1.0, scale=index + 1.0)
        for index in range(4)
    ]
    samples = merged(*parts).samples
    for index, part in enumerate(parts):
        rows = np.searchsorted(samples["step"], part.samples["step"])
        np.testing.assert_array_equal(
            samples["device_peak_bytes"][rows, index], part.samples["device_peak_bytes"][:, 0]
        )
        others = np.setdiff1d(np.arange(samples.num_samples), rows)
        assert np.isnan(samples["device_peak_bytes"][others, index].astype(float)).all()
        assert (samples["host_rss_bytes"][rows] >= part.samples["host_rss_bytes"]).all()


# -- what describes it -----------------------------------------------------------------------------------------


def test_the_first_worker_describes_the_run() -> None:
    first = recorded(0, [1], tags=("a",), configuration={"sample_every": 1, "trace": "auto"}, versions={"keras": "3"})
    first = replace(first, layers=(LayerMemory("dense", "Dense", weights_bytes=4),))
    second = recorded(1, [1], configuration={"sample_every": 5, "reset_peak": False})
    whole = merged(first, second)
    assert (whole.run.name, whole.run.tags, whole.run.versions) == ("mine", ("a",), {"keras": "3"})
    # With less than the first worker's care a peak's window is not known for all columns.
    assert whole.run.configuration == {"sample_every": 5, "reset_peak": False, "trace": "auto"}
    assert whole.run.worker is None and whole.layers == first.layers
    assert whole.workers == (first, second)


def test_notes_name_the_worker_unless_all_have_them() -> None:
    notes = [("both", "mine", EVIL), ("both",), ("both", "late")]
    whole = merged(*(recorded(index, [1], notes=own) for index, own in enumerate(notes)))
    assert whole.run.notes == ("both", "worker:0: mine", f"worker:0: {EVIL}", "worker:2: late")


def test_traced_steps_name_the_worker() -> None:
    line = (100, 0, 1, "a", "activations", "forward", "Relu")

    def traced(index: int, *numbers: int, size: int = 100) -> Recording:
        steps = tuple(step(timeline([(size, *line[1:])], 2), number) for number in numbers)
        return replace(recorded(index, [1, 2, 3]), steps=steps)

    whole = merged(traced(0, 2, 3), traced(1, 2, size=500))
    assert [(one.step, one.timeline.device) for one in whole.steps] == [
        (2, "worker:0/CPU:0"),
        (2, "worker:1/CPU:0"),
        (3, "worker:0/CPU:0"),
    ]
    report = whole.report
    # The peak was in step 3 of the first, so that is shown; without it, the highest of its device.
    assert (report.peak.device, report.peak.step) == ("worker:0/CPU:0", 3)
    assert report.traced is not None and report.traced.device == "worker:0/CPU:0"
    assert report.peak.requested_bytes == 100 and report.traced_steps == (2, 3)
    others = merged(traced(0, 2), traced(1, 2, size=500)).report
    assert others.traced is not None and others.traced.device == others.peak.device == "worker:0/CPU:0"
    other = report.on_device("worker:1/CPU:0")
    assert other.peak.requested_bytes == 500 and other.traced_steps == (2,)
    assert whole.workers[0].steps[0].timeline.device == "CPU:0"


def test_other_devices_of_a_step_name_the_worker_too() -> None:
    steps = two_device_steps()
    whole = merged(*(replace(recorded(index, [1, 2, 3]), steps=steps) for index in range(2)))
    assert {tuple(one.timelines) for one in whole.steps if one.step == 2} == {
        ("worker:0/GPU:0", "worker:0/CPU:0"),
        ("worker:1/GPU:0", "worker:1/CPU:0"),
    }


def test_odd_names_do_no_harm() -> None:
    odd = [recorded(index, [1], name=EVIL, devices=(DeviceInfo(EVIL),)) for index in (0, 1)]
    whole = merged(*odd)
    assert whole.run.name == EVIL and whole.run.devices[1].name == f"worker:1/{EVIL}"
    text = whole.report.text(everything=True)
    assert "\x1b" not in text and "on 2 workers" in text and "[red]x[/]" in text


# -- which belong together -------------------------------------------------------------------------------------

UPTO_10 = tuple(range(1, 11))


@pytest.mark.parametrize(
    ("chosen", "others", "members", "left_out"),
    [
        pytest.param(recorded(1, UPTO_10), [recorded(0, UPTO_10)], ["mine-worker-0", "mine-worker-1"], [], id="both"),
        pytest.param(recorded(0, UPTO_10), [], ["mine-worker-0"], [], id="alone"),
        pytest.param(
            recorded(0, UPTO_10),
            [recorded(1, UPTO_10, cluster="other"), replace(recorded(1, UPTO_10), run=RunInfo("plain", 1.0))],
            ["mine-worker-0"],
            [],
            id="strangers",
        ),
        pytest.param(
            recorded(1, UPTO_10, created=100, name="b"),
            [
                recorded(0, UPTO_10, name="a"),
                recorded(1, UPTO_10, name="a"),
                recorded(0, UPTO_10, created=101, name="b"),
            ],
            ["b-worker-0", "b-worker-1"],
            [],
            id="an earlier training",
        ),
        pytest.param(
            recorded(1, UPTO_10, created=100, name="b"),
            [recorded(0, UPTO_10, name="a"), recorded(1, UPTO_10, name="a")],
            ["b-worker-1"],
            [],
            id="an earlier training, and one worker of this",
        ),
        pytest.param(
            recorded(0, UPTO_10, name="a"),
            [
                recorded(0, UPTO_10, created=100, name="b"),
                recorded(1, UPTO_10, created=100, name="b"),
                recorded(1, [1], created=1, name="a"),
            ],
            ["a-worker-0", "a-worker-1"],
            [],
            id="a later training",
        ),
        pytest.param(
            recorded(1, range(1, 20), created=60, name="mine-2"),
            [recorded(0, range(1, 100)), recorded(1, range(1, 58), created=1)],
            ["mine-worker-0", "mine-2-worker-1"],
            ["mine-worker-1"],
            id="a killed worker that was started anew",
        ),
        pytest.param(
            recorded(1, range(1, 20), created=60, name="mine-3"),
            [
                recorded(0, range(1, 100)),
                recorded(1, range(1, 28), created=30, name="mine-2"),
                recorded(1, range(1, 20), created=1),
                recorded(1, range(1, 20), created=-50, name="old"),
            ],
            ["mine-worker-0", "mine-3-worker-1"],
            ["mine-2-worker-1", "mine-worker-1"],
            id="and again",
        ),
        pytest.param(
            recorded(1, range(1, 20), created=60),
            [recorded(0, range(1, 100)), recorded(1, range(1, 58), created=-100, name="old")],
            ["mine-worker-0", "mine-worker-1"],
            [],
            id="its run of an earlier training",
        ),
        pytest.param(
            recorded(2, UPTO_10, count=3),
            [recorded(1, [1, 2], count=3), recorded(0, UPTO_10, kind="chief", count=3)],
            ["mine-chief-0", "mine-worker-1", "mine-worker-2"],
            [],
            id="three, a chief among them",
        ),
        pytest.param(
            recorded(0, UPTO_10, created=3, name="b"),
            [
                recorded(0, UPTO_10, created=2, name="a"),
                recorded(1, UPTO_10, created=1, name="b"),
                recorded(1, UPTO_10, created=4, name="a"),
            ],
            ["b-worker-0", "b-worker-1"],
            ["a-worker-1", "a-worker-0"],
            id="two watches",
        ),
        pytest.param(
            recorded(0, UPTO_10),
            [recorded(1, [], created=-1)],
            ["mine-worker-0"],
            [],
            id="an earlier one without a row",
        ),
        pytest.param(
            recorded(0, UPTO_10),
            [recorded(1, [], created=2)],
            ["mine-worker-0", "mine-worker-1"],
            [],
            id="one without a row as yet",
        ),
    ],
)
def test_runs_of_one_training_belong_together(
    chosen: Recording, others: list[Recording], members: list[str], left_out: list[str]
) -> None:
    assert gathered(chosen, *others) == (members, left_out)
    assert gathered(chosen, *reversed(others)) == (members, left_out)


def test_only_what_may_belong_is_read() -> None:
    read: list[str] = []

    def reader(recording: Recording) -> tuple[RunInfo, Any]:
        return recording.run, lambda: read.append(recording.run.name) or recording

    old = [recorded(index, UPTO_10, created=-100 * age, name=f"old{age}") for age in range(1, 9) for index in (0, 1)]
    strangers = [recorded(1, UPTO_10, cluster="other", name="other")]
    gather(recorded(0, UPTO_10), map(reader, [*old, *strangers, recorded(1, UPTO_10)]))
    assert sorted(read) == ["mine-worker-1", "old1-worker-0", "old1-worker-1"]


def test_an_ordinary_run_stands_alone() -> None:
    plain = replace(recorded(0, [1]), run=RunInfo("plain", 0.0))
    assert gather(plain, [(recorded(1, [1]).run, lambda: pytest.fail("was read"))]) == ((plain,), ())


def test_what_is_absent_is_told() -> None:
    first, second = recorded(0, [1], count=3), recorded(2, [1], count=3)
    assert absences([first, second], []) == (
        "1 of 3 workers left no recording of this training here; it has worker:0, worker:2.",
    )
    assert absences([recorded(0, [1]), recorded(1, [1])], [recorded(1, [1], name="old").run]) == (
        "Left out: 'old-worker-1', another run at that time; load it by its name.",
    )
    assert absences([recorded(0, [1]), recorded(1, [1])], []) == ()


# -- what the report says --------------------------------------------------------------------------------------


def test_the_report_tells_each_workers_figures() -> None:
    report = merged(recorded(0, range(1, 101)), recorded(1, range(1, 58), scale=1024.0)).report
    zero, one = report.workers
    assert (zero.name, zero.run, zero.peak_bytes, zero.peak_step, zero.device, zero.host_rss_bytes) == (
        "worker:0",
        "mine-worker-0",
        300,
        100,
        "CPU:0",
        1000,
    )
    assert (zero.last_step, zero.ends_early) == (100, False)
    assert (one.peak_bytes, one.last_step, one.ends_early) == (57 * 3 * 1024, 57, True)
    assert (report.peak.bytes, report.peak.step, report.peak.device) == (57 * 3 * 1024, 57, "worker:1/CPU:0")
    assert [growth.series for growth in report.growth] == [
        "device_in_use_bytes worker:0/CPU:0",
        "device_in_use_bytes worker:1/CPU:0",
        "host_rss_bytes worker:0",
        "host_rss_bytes worker:1",
    ]
    assert [growth.num_samples for growth in report.growth] == [80, 37, 80, 37]  # 20 rows are warm-up
    text = str(report)
    assert "run mine on 2 workers" in text
    [line] = [line for line in text.splitlines() if line.strip().startswith("worker:0 ")]
    assert "300 B" in line and "step 100" in line and "RSS at most 1000 B" in line and "ends" not in line
    assert "worker 1's recording ends at step 57 of 100" in " ".join(text.split())
    assert report.to_dict()["workers"][1]["ends_early"] is True


@pytest.mark.parametrize(
    ("steps", "every", "early"),
    [([5, 10], 5, False), ([5], 5, True), ([6], 5, False), ([9], 1, True), ([10], 1, False), ([], 1, True)],
)
def test_a_series_that_ends_between_two_samples_does_not_end_early(steps: list[int], every: int, early: bool) -> None:
    second = recorded(1, steps, configuration={"sample_every": every})
    report = merged(recorded(0, UPTO_10), second).report
    assert [worker.ends_early for worker in report.workers] == [False, early]
    assert ("worker 1's recording" in str(report)) is early


def test_what_no_worker_knows_is_unknown() -> None:
    unknown = [recorded(index, [1, 2], scale=NAN) for index in (0, 1)]
    report = merged(*unknown).report
    assert report.peak.bytes is None
    assert [(one.peak_bytes, one.host_rss_bytes, one.last_step) for one in report.workers] == [(None, None, 2)] * 2
    assert "unknown" in str(report)


def test_an_ordinary_report_has_no_workers() -> None:
    report = replace(recorded(0, UPTO_10)).report
    assert report.workers == () and "worker" not in str(report).replace("mine-worker-0", "")
    assert report.to_dict()["workers"] == []
