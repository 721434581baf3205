"""The benchmarks run and print what docs/figures.md quotes. Their times are nobody's business here; sizes are."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import run_forked

from kerasmemwatch.tensorboard_plugin.views import VIEWS

ROOT = Path(__file__).parents[2]
MIB = 2**20


def benchmark(name: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def forked_benchmark(name: str, *arguments: str) -> str:
    """``benchmark`` without TensorFlow's import, whose seconds are nothing that is looked at."""
    environment = {**os.environ, "TF_CPU_ALLOCATOR_USE_BFC": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    status, output, errors = run_forked(ROOT / "benchmarks" / name, *arguments, environment=environment)
    assert status == 0, errors
    return output


def test_footprint_stays_small_and_the_planted_peak_is_found(tmp_path: Path) -> None:
    steps = 20_000
    output = benchmark("footprint.py", "--steps", str(steps), "--json", str(tmp_path / "found.json"))
    assert "Footprint of 20,000 steps" in output
    assert "target: own growth" in output
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["peak_found"]
    assert found["last_step"] == steps
    # The first 4,096 rows are all kept; the file's sizes hang on when the writing thread runs, but little.
    assert 4096 <= found["rows"] <= steps
    assert 0 < found["recording_bytes"] < MIB / 2
    assert 0 < found["scalars_bytes"] < MIB / 2
    assert 0 < found["points_per_scalar"] <= 4096


def test_overhead_measures_every_callback(tmp_path: Path) -> None:
    output = forked_benchmark("overhead.py", "--quick", "--json", str(tmp_path / "found.json"))
    assert "Hooks driven by themselves" in output
    assert "Hooks within a fit" in output
    assert "Whole steps within a fit, MemoryWatch on against off, 10 pairs of blocks of 2 steps" in output
    assert "heavy packages loaded by it: none" in output
    assert output.count("target: ") == 13
    assert output.count("possible: ") == 6
    found = json.loads((tmp_path / "found.json").read_text())
    slow = {"tensorboard", "psutil"}
    assert {"empty", "watch", "watch_more", "watch_kept", "floor"} | slow <= set(found["hooks"]["step_s"])
    rounds = found["clocked"]["hooks_s"]
    assert set(rounds) == {"empty", "watch", "floor"} | slow
    assert {len(seconds) for seconds in rounds.values()} == {4}
    assert all(second > 0 for seconds in rounds.values() for second in seconds)
    assert set(found["whole_steps"]) == {"watch", "floor"}
    for times in found["whole_steps"].values():
        assert len(times["step_s"]) == 10
        assert all(second > 0 for pair in times["step_s"] for second in pair)


def test_many_layers_times_first_and_later_fits(
    tmp_path: Path, forked_children: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--layers", "20", "--fresh", "1", "--warm", "1", "--json", str(tmp_path / "found.json"))
    forked_children("many_layers").main(arguments)
    output = capsys.readouterr().out
    assert "Fits of 12 steps of 20 layers" in output
    assert output.count("target: ") == 2
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["fresh"]) == set(found["warm"]) == {"none", "untraced", "traced"}
    assert all(seconds > 0 for times in found.values() for case in times.values() for seconds in case)


def test_exact_counting_is_on_and_off_in_processes_of_their_own(
    tmp_path: Path, forked_children: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    forked_children("exact_cpu").main(["--quick", "--json", str(tmp_path / "found.json")])
    output = capsys.readouterr().out
    assert "Exact counting on and off: 1 pairs of processes" in output
    assert "cnn: ms a step" in output and "cnn: peak RSS, MiB" in output
    [[on, off]] = json.loads((tmp_path / "found.json").read_text())["cnn"]
    for fit in (on, off):
        assert fit["step_s"] > 0 and fit["peak_rss_bytes"] > 100 * MIB


@pytest.mark.browser
def test_dashboard_asks_every_route_and_draws_in_a_browser(tmp_path: Path) -> None:
    output = benchmark("dashboard.py", "--quick", "--json", str(tmp_path / "found.json"))
    assert "Answers over HTTP once warm" in output
    assert output.count("target: ") == 6
    found = json.loads((tmp_path / "found.json").read_text())
    for loader in ("rust", "python"):
        routes = found["routes"][loader]
        assert set(VIEWS) | {"runs", "plotly.js"} <= set(routes)
        assert all(len(times["seconds"]) == 2 and times["body_bytes"] > 0 for times in routes.values())
    assert {name for name, times in routes.items() if times["body_bytes"] >= MIB} == {"plotly.js"}
    assert all(0 < own < whole for paints in found["paint_s"].values() for whole, own in paints)
    assert list(found["paint_s"]) == ["overview"] and list(found["redraw_s"]) == ["alive within the step"]
    for timed in found["redraw_s"].values():
        assert len(timed) == 2
        assert all(0 < drawn < refined for drawn, refined in timed)
    assert all(len(pairs) == 1 for pairs in found["start_s"].values())


def test_gpu_does_nothing_without_a_gpu() -> None:
    assert forked_benchmark("gpu.py") == "There is no GPU:0 here, so nothing is measured.\n"


def test_gpu_measures_on_whatever_it_is_told(
    tmp_path: Path, forked_children: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = forked_children("gpu")
    arguments = ("--models", "mlp", "--modes", "graph", "--epochs", "1", "--pairs", "5", "--runs", "1")
    assert gpu.main(["--device", "CPU:0", *arguments, "--json", str(tmp_path / "found.json")]) == 0
    output = capsys.readouterr().out
    assert "Measured on CPU:0, " in output and "Every byte at the peak on CPU:0" in output
    assert "A step with the watch on takes" in output and "5 pairs of blocks of 2 steps" in output
    assert "A traced step takes" in output and "A fit of cnn (graph) with trace='auto' takes" in output
    assert output.count("target: covered") == 1 and "NOT reached" not in output and "WRONG" not in output
    found = json.loads((tmp_path / "found.json").read_text())
    row = found["rows"]["mlp, graph"]
    assert row["device"] == ["CPU:0"]
    assert [step["step"] for step in row["steps"]] == row["expected_steps"] == [6, 14, 22]
    # The first step is traced for its story, and is in no figure of the row.
    assert [step for step, _, _ in row["peaks"]] == [1, 6, 14, 22]
    # A step is sampled from a little before its capture begins.
    assert all(sampled >= highest for _, sampled, highest in row["peaks"])
    assert row["first_step"]["autotuning_bytes"] == 0
    assert row["first_step"]["peak_bytes"] > 0 and row["first_step"]["steady_peak_bytes"] > 0
    # A peak that is higher than any before has one more step traced.
    assert len(found["steps"]["pairs"]) == 5 and found["auto"]["traced"][:2] == [2, 10]


def test_growth_judges_a_few_programs_and_finds_what_is_added(tmp_path: Path) -> None:
    output = forked_benchmark("growth.py", "--part", "--json", str(tmp_path / "found.json"))
    assert "4 of 4 runs were recorded" in output
    assert "target: false verdicts of growing at most 0 verdicts" in output and "a look at 10,000 rows" in output
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["runs"], found["failed"]) == (4, [])
    assert not [series for _, _, series, _ in found["false"] if series.startswith("device")]
    count, tried = found["found"]["device +4 KiB a step within 200 steps"]
    # Four recordings of a busy machine are no statistic: the whole benchmark holds the figures to their targets.
    assert tried >= 3 and count > tried / 2
    held, judged, made = (sum(each) for each in zip(*found["coverage"].values(), strict=True))
    assert made == judged == 200 and held >= 150


def test_a_series_that_stands_still_or_grows_evenly_counts_for_the_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    intervals = importlib.import_module("_growth_intervals")
    found = intervals._covered([np.full(400, 64.0 * MIB)] * 20, np.random.default_rng(0))
    assert (found.made, found.judged, found.held) == (20, 20, 20)


def test_a_released_model_leaves_nothing_on_the_device() -> None:
    found = json.loads(forked_benchmark("release.py", "--measure", "graph,release,5").splitlines()[-1])
    assert abs(found["device_bytes"]) < 1 and "rss_bytes" in found


def test_a_shuffle_buffer_grows_by_little_while_elements_replace_each_other() -> None:
    [row] = [line for line in benchmark("shuffle.py", "--part").splitlines() if "4.0 KiB" in line]
    shares = [float(each.split()[0]) for each in row.split("│")[4:-1]]
    assert len(shares) == 6 and min(shares) > -5 and 0 < max(shares) < 30  # of the least that is said to grow
