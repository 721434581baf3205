"""The command line on recordings that the sinks wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from asking import traced
from fakes import FakeClock, append_payload, device_probe, event_file, newer, write_run
from runs import two_device_steps

from kerasmemwatch import __version__
from kerasmemwatch.cli import main
from kerasmemwatch.storage.codecs.row_codec import VERSION, encode_json
from kerasmemwatch.storage.sinks.tensorboard import RUN_TAG

ROOT = Path(__file__).parents[2]


@pytest.fixture
def logs(tmp_path: Path) -> str:
    for batches, name in enumerate(("zebra", "ape"), 1):
        write_run(tmp_path / "logs", name, 20 * batches, clock=FakeClock(1000.0 * batches))
    return str(tmp_path / "logs")


def test_shows_the_newest_run(logs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", logs]) == 0
    out = capsys.readouterr().out
    assert "Memory of run ape" in out and "40 steps" in out


def test_shows_a_run_by_name(logs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", logs, "--run", "zebra"]) == 0
    assert "Memory of run zebra" in capsys.readouterr().out


def test_lists_runs_one_a_line(logs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", logs, "--list"]) == 0
    assert capsys.readouterr().out == "zebra\nape\n"


def test_lists_runs_that_cannot_be_read_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "good", 3)
    write_run(tmp_path, "odd", 3)
    path = event_file(tmp_path / "odd")
    path.write_bytes(path.read_bytes()[:40])
    append_payload(tmp_path / "odd", RUN_TAG, encode_json({"run": {"name": "odd", "created": "x"}, "layers": []}))
    assert main(["show", str(tmp_path), "--list"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["odd", "good"]
    assert shown.err.startswith("kerasmemwatch: the run 'odd' cannot be read: ") and shown.err.count("\n") == 1
    for arguments in (["show", str(tmp_path)], ["compare", str(tmp_path), str(tmp_path / "good")]):
        assert main(arguments) == 0
    assert "'odd'" in capsys.readouterr().out


def test_lists_odd_names_without_their_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "a\x1b[31m\nb [red]c[")
    assert main(["show", str(tmp_path), "--list"]) == 0
    assert capsys.readouterr().out == "a\\x1b[31m\\nb [red]c[\n"


def test_lists_nothing_where_nothing_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(tmp_path), "--list"]) == 0
    assert capsys.readouterr().out == ""


def test_json_is_the_report(logs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", logs, "--json"]) == 0
    raw = json.loads(capsys.readouterr().out)
    assert raw["run"]["name"] == "ape" and raw["num_samples"] == 40
    assert raw["peak"]["bytes"] == 40 and raw["peak"]["step"] == 40


@pytest.fixture
def two_devices(tmp_path: Path) -> str:
    probes = (device_probe(lambda batch: [1, batch, 1], ["GPU:0"], devices=[{"name": "GPU:0"}]),)
    traced(tmp_path, "run", two_device_steps(), probes=probes)
    return str(tmp_path)


def test_shows_what_another_device_held(two_devices: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", two_devices]) == 0
    shown = capsys.readouterr().out
    assert "At the traced peak (training step 10 on GPU:0, graph): " in shown
    assert "At most on other devices: CPU:0 27.9 KiB, GPU host (pinned) 2.0 KiB" in shown
    assert main(["show", two_devices, "--device", "CPU:0"]) == 0
    shown = capsys.readouterr().out
    assert "At the traced peak (training step 10 on CPU:0, graph): 27.9 KiB requested" in shown
    assert "embedding" in shown and "encoder" not in shown
    assert "At most on other devices: GPU:0 1.1 MiB" in shown


def test_json_of_a_device(two_devices: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", two_devices, "--json", "--device", "GPU host (pinned)"]) == 0
    raw = json.loads(capsys.readouterr().out)
    assert raw["traced"]["device"] == "GPU host (pinned)" and raw["peak"]["requested_bytes"] == 2048
    assert raw["devices"] == ["GPU host (pinned)", "GPU:0", "CPU:0"]


@pytest.mark.parametrize("command", ["show", "report"])
def test_a_device_that_is_not_there_names_those_that_are(
    two_devices: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    output = ["-o", str(tmp_path / "r.html")] if command == "report" else []
    assert main([command, two_devices, *output, "--device", "TPU:0"]) == 2
    captured = capsys.readouterr()
    expected = "Expected device to be one of 'GPU:0', 'CPU:0', 'GPU host (pinned)'. Received: device='TPU:0'."
    assert captured.out == "" and captured.err == f"kerasmemwatch: {expected}\n"
    assert not (tmp_path / "r.html").exists()


def test_without_a_traced_step_no_device_can_be_chosen(logs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", logs, "--device", "CPU:0"]) == 2
    assert "that of a traced step, of which there is none" in capsys.readouterr().err


def test_all_says_no_less(logs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", logs]) == 0
    brief = capsys.readouterr().out
    assert main(["show", logs, "--all"]) == 0
    assert len(capsys.readouterr().out) >= len(brief)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "{tmp}/none"], "no directory"),
        (["show", "{tmp}"], "Expected a recording"),
        (["show", "{tmp}/none", "--list"], "no directory"),
        (["show", "{logs}", "--run", "cat"], "'zebra', 'ape'. Received: run='cat'"),
        (["show", "{logs}", "--run", "../secret"], "Expected the name of a run"),
        (["run"], "Expected a script"),
        (["run", "{tmp}/none.py"], "Expected a script that exists"),
        (["run", "--colour", "x.py"], "Expected --log-dir DIR"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    logs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"{tmp}": str(tmp_path / "empty"), "{logs}": logs}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("kerasmemwatch: ") and message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_a_newer_recording_says_upgrade(logs: str, capsys: pytest.CaptureFixture[str]) -> None:
    append_payload(Path(logs) / "ape", RUN_TAG, newer(VERSION + 1, of_rows=False))
    assert main(["show", logs, "--run", "ape"]) == 2
    assert "pip install -U kerasmemwatch" in capsys.readouterr().err


def test_a_cut_off_recording_is_shown_with_a_note(logs: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = event_file(Path(logs) / "ape")
    path.write_bytes(path.read_bytes()[:-2])
    assert main(["show", logs, "--run", "ape", "--all"]) == 0
    assert "cut off" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["show"],
        ["show", "a", "b"],
        ["show", "a", "--colour"],
        ["demo", "--epochs", "0"],
        ["demo", "--epochs", "x"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: kerasmemwatch" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["show", "--help"],
        ["run", "--help"],
        ["report", "--help"],
        ["compare", "-h"],
        ["demo", "-h"],
        ["doctor", "-h"],
    ],
)
def test_help_is_exit_code_0(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    assert "usage: kerasmemwatch" in capsys.readouterr().out


def test_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"kerasmemwatch {__version__}\n"


def run_module(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", "-m", "kerasmemwatch", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("option", ["--all", "--json", "--list"])
def test_showing_loads_no_framework(logs: str, option: str) -> None:
    done = run_module("show", logs, option)
    assert done.returncode == 0 and "ape" in done.stdout
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "kerasmemwatch" in loaded and not loaded & {"tensorflow", "keras", "jax", "torch"}


@pytest.mark.parametrize("options", [["--json"], ["--list"]])  # more than a buffer holds, and less
def test_a_reader_that_goes_away_is_no_error(logs: str, options: list[str]) -> None:
    command = [sys.executable, "-m", "kerasmemwatch", "show", logs, *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), error) == (0, b"")


def test_an_ascii_terminal_is_enough(tmp_path: Path) -> None:
    write_run(tmp_path, "caf\xe9")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    for option in ([], ["--list"], ["--json"]):
        done = run_module("show", str(tmp_path), *option, env=environment)
        assert done.returncode == 0 and "caf" in done.stdout, done.stderr[-500:]
