"""Every wrong argument is told at once: what was expected, what was received."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeProbe, FakeSink

from kerasmemwatch.errors import InvalidArgumentError, InvalidTypeError, LogDirError
from kerasmemwatch.watch.options import Options


class NoPath:
    def __fspath__(self) -> bytes:
        return b"bytes"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log_dir", 1),
        ("log_dir", b"logs"),
        ("log_dir", True),
        ("log_dir", ["logs"]),
        ("log_dir", NoPath()),
        ("run_name", 1),
        ("run_name", b"run"),
        ("tags", "one"),
        ("tags", 1),
        ("tags", [1]),
        ("tags", b"x"),
        ("tags", None),
        ("sample_every", 1.0),
        ("sample_every", "1"),
        ("sample_every", True),
        ("sample_every", None),
        ("reset_peak", 1),
        ("reset_peak", None),
        ("detect_leaks", "yes"),
        ("add_to_logs", 0),
        ("strict", "False"),
        ("probes", FakeProbe()),
        ("probes", "host"),
        ("probes", [object()]),
        ("probes", {FakeProbe()}),
        ("sinks", FakeSink()),
        ("sinks", "logs"),
        ("sinks", [FakeProbe()]),
    ],
)
def test_wrong_types(name: str, value: Any) -> None:
    with pytest.raises(InvalidTypeError, match=rf"(?s)Expected .*{name}.* Received: "):
        Options(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log_dir", ""),
        ("log_dir", "a\0b"),
        ("log_dir", "\ud800"),
        ("run_name", ""),
        ("run_name", ".."),
        ("run_name", "a/b"),
        ("sample_every", 0),
        ("sample_every", -3),
        ("verbose", "loud"),
        ("verbose", None),
        ("verbose", -1),
        ("verbose", []),
        ("verbose", np.ones(2)),
        ("trace", "always"),
        ("trace", [0]),
        ("trace", [True]),
        ("trace", [1.5]),
        ("trace", 7),
        ("trace", np.ones(2)),
    ],
)
def test_wrong_values(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"(?s)Expected .*{name}.* Received: "):
        Options(**{name: value})


def test_a_log_dir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LogDirError, match="Expected log_dir"):
        Options(log_dir=str(tmp_path / "file"))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"log_dir": None},
        {"log_dir": "gs://bucket/logs"},
        {"run_name": "x" * 200},
        {"run_name": "<b>"},
        {"sample_every": 10**9},
        {"trace": [1, 5]},
        {"trace": range(1, 4)},
        {"trace": None},
        {"trace": False},
        {"verbose": 0},
        {"verbose": 2},
        {"verbose": True},
        {"probes": []},
        {"probes": (FakeProbe(),)},
        {"sinks": [FakeSink()]},
        {"tags": ()},
    ],
)
def test_right_values(arguments: dict[str, Any]) -> None:
    options = Options(**arguments)
    assert {name: getattr(options, name) for name in arguments} == arguments


def test_paths_and_tags_are_made_plain(tmp_path: Path) -> None:
    options = Options(log_dir=tmp_path, tags=(tag for tag in ("a", "b")))  # type: ignore[arg-type]
    assert options.log_dir == str(tmp_path) and options.tags == ("a", "b")


def test_nothing_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Options(log_dir="logs/below", run_name="run")
    assert list(tmp_path.iterdir()) == []
