"""Fault tests: each breaks something on purpose; scripts are run in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forks import Forked, plain_environment, run_forked, start_forked

SCRIPTS = Path(__file__).parent / "scripts"
ROOT = str(Path(__file__).parents[2])
# For what hangs: the longest takes two minutes on 2 cores of its own.
TIMEOUT_S = 900

collect_ignore = ["scripts"]
sys.path.insert(0, str(SCRIPTS))  # for fault_kit, which the scripts import as well


@pytest.fixture(scope="session")
def execute() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script of ``scripts/`` to its end: ``execute(name, *arguments, flags=(), **environment)``."""

    def run(
        name: str, *arguments: object, flags: tuple[str, ...] = (), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *flags, str(SCRIPTS / name), *map(str, arguments)],
            env=plain_environment(**environment),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def execute_forked() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``execute`` without TensorFlow's import, for what does not hang on how a process begins."""

    def run(name: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [str(SCRIPTS / name), *map(str, arguments)]
        done = run_forked(Path(command[0]), *command[1:], environment=plain_environment(**environment))
        return subprocess.CompletedProcess(command, *done)

    return run


@pytest.fixture
def start() -> Callable[..., subprocess.Popen[str]]:
    """Start a script of ``scripts/`` with its input and output in pipes; it is killed as the test ends."""
    started = []

    def run(name: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPTS / name), *map(str, arguments)],
            env=plain_environment(**environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate(timeout=TIMEOUT_S)


@pytest.fixture
def start_fit() -> Iterator[Callable[..., Forked]]:
    """``start`` without TensorFlow's import."""
    started = []

    def run(name: str, *arguments: object, **environment: str) -> Forked:
        process = start_forked(SCRIPTS / name, *map(str, arguments), environment=plain_environment(**environment))
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
