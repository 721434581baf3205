"""Tests of the benchmarks, which `.ci/run` runs apart: they check tools of ours, and take two minutes."""

from __future__ import annotations

import os

# Read when TensorFlow makes its context, so before anything imports it.
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import importlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forks import run_forked

ROOT = Path(__file__).parents[2]


@pytest.fixture
def forked_children(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """``forked_children(name)``: a benchmark as a module, whose processes are spared TensorFlow's import."""

    def run(command: list[str], *, env: dict[str, str], check: bool = False, **_: Any) -> Any:
        done = subprocess.CompletedProcess(command, *run_forked(Path(command[1]), *command[2:], environment=env))
        if check:
            done.check_returncode()
        return done

    def load(name: str) -> Any:
        monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
        stand_in = SimpleNamespace(**vars(subprocess))
        stand_in.run, stand_in.check_output = run, lambda *args, **named: run(*args, **named, check=True).stdout
        for module in map(importlib.import_module, (name, "_processes")):
            if hasattr(module, "subprocess"):
                monkeypatch.setattr(module, "subprocess", stand_in)
        return importlib.import_module(name)

    return load
