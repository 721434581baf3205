"""What `kerasmemwatch run` makes of its arguments and environment, without starting anything."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from kerasmemwatch.commands.run import launch
from kerasmemwatch.errors import InvalidArgumentError, LogDirError, MissingDependencyError


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """The commands and environments that would have replaced the process."""
    calls: list[tuple[list[str], dict[str, str]]] = []

    def become(command: list[str], environment: dict[str, str]) -> int:
        calls.append((command, environment))
        return 0

    monkeypatch.setattr(launch, "_become", become)
    return calls


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()
    return "train.py"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a.py"], ("logs", ["a.py"])),
        (["a.py", "-m", "--log-dir", "x"], ("logs", ["a.py", "-m", "--log-dir", "x"])),
        (["--log-dir", "d", "-m", "pkg.mod", "--", "1"], ("d", ["-m", "pkg.mod", "--", "1"])),
        (["--log-dir=d", "a.py"], ("d", ["a.py"])),
        (["--log-dir=gs://bucket/a=b", "--", "--odd name.py"], ("gs://bucket/a=b", ["--odd name.py"])),
        (["-"], ("logs", ["-"])),
        ([], ("logs", [])),
    ],
)
def test_options_end_where_the_script_begins(arguments: list[str], expected: tuple[str, list[str]]) -> None:
    assert launch.split_arguments(arguments) == expected


@pytest.mark.parametrize("arguments", [["--log-dir"], ["--logdir", "d", "a.py"], ["--help=1", "a.py"]])
def test_unknown_or_incomplete_option(arguments: list[str]) -> None:
    with pytest.raises(InvalidArgumentError, match="Expected --log-dir DIR"):
        launch.split_arguments(arguments)


@pytest.mark.parametrize(
    ("argv", "received"),
    [([], "nothing"), (["-m"], "-m"), (["-x", "a.py"], "-x"), (["missing.py"], "'missing.py'")],
)
def test_nothing_to_run(started: list[object], argv: list[str], received: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"Received: {received}"):
        launch.run(argv, "logs")
    assert not started


def test_log_dir_that_is_a_file(started: list[object], script: str) -> None:
    with pytest.raises(LogDirError, match="a file"):
        launch.run([script], script)
    assert not started


class Flags:
    """`sys.flags` of an interpreter that ignores its environment."""

    ignore_environment = 1
    no_site = 0


def test_interpreter_that_ignores_its_environment(
    started: list[object], script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "flags", Flags())
    with pytest.raises(InvalidArgumentError, match="python with -I, -E or -S"):
        launch.run([script], "logs")
    assert not started


def test_installation_without_the_file_that_starts_the_watch(
    started: list[object], script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launch, "_STARTUP_DIR", tmp_path)
    with pytest.raises(MissingDependencyError, match=r"sitecustomize\.py.* install it again"):
        launch.run([script], "logs")
    assert not started
    # A plain run needs nothing of ours.
    monkeypatch.setenv("KERASMEMWATCH_DISABLE", "1")
    launch.run([script], "logs")
    assert started


def test_script_gets_its_arguments_and_the_run(
    started: list[tuple[list[str], dict[str, str]]], script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KERASMEMWATCH_DISABLE", raising=False)
    launch.run([script, "--log-dir", "its own"], "logs")
    [(command, environment)] = started
    assert command[0] == sys.executable
    assert command[-3:] == [script, "--log-dir", "its own"]
    assert json.loads(environment[launch.RUN_VARIABLE]) == {"log_dir": str(tmp_path / "logs")}


@pytest.mark.parametrize("value", ["1", "yes"])
def test_disabled_means_a_plain_run(
    started: list[tuple[list[str], dict[str, str]]], script: str, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("KERASMEMWATCH_DISABLE", value)
    launch.run([script], script)
    assert started[0][1] == dict(os.environ)


def test_environment_keeps_what_the_user_set() -> None:
    given = {"HOME": "/h", "TF_CPU_ALLOCATOR_USE_BFC": "0", "PYTHONPATH": f"/a{os.pathsep}{os.pathsep}/b"}
    made = launch.watched_environment(given, "gs://bucket/logs")
    startup, _, path = made["PYTHONPATH"].partition(os.pathsep)
    assert path == given["PYTHONPATH"]
    assert (Path(startup) / "sitecustomize.py").is_file()
    assert json.loads(made[launch.RUN_VARIABLE])["log_dir"] == "gs://bucket/logs"
    assert {name: made[name] for name in ("HOME", "TF_CPU_ALLOCATOR_USE_BFC")} == {
        "HOME": "/h",
        "TF_CPU_ALLOCATOR_USE_BFC": "0",
    }


@pytest.mark.parametrize("environment", [{}, {"PYTHONPATH": ""}])
def test_current_directory_does_not_slip_into_the_path(environment: dict[str, str]) -> None:
    made = launch.watched_environment(environment, "logs")
    assert os.pathsep not in made["PYTHONPATH"]
    assert made["TF_CPU_ALLOCATOR_USE_BFC"] == "1"


def test_interpreter_options_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_xoptions", {"no_debug_ranges": True, "pycache_prefix": "/c"})
    flags = launch._interpreter_flags()
    assert " ".join(flags).count("-X") == 2
    assert {"no_debug_ranges", "pycache_prefix=/c"} <= set(flags)
