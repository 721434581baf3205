"""Launcher of ``kerasmemwatch run``: a script in a new interpreter, with exact counting and every fit watched.

The interpreter is replaced (exec), so process id, exit code, signals, standard streams, ``__main__`` and tracebacks are
those of a plain run. Only the environment differs, and children inherit it. In each interpreter,
``_startup/sitecustomize.py`` waits for Keras, and ``autowatch`` then adds the watches.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kerasmemwatch.errors import InvalidArgumentError, LogDirError, MissingDependencyError
from kerasmemwatch.exact_cpu import exact_variables
from kerasmemwatch.storage.files.file_system import check_working_dir
from kerasmemwatch.switches import disabled

__all__ = ["run", "split_arguments", "watched_environment"]

RUN_VARIABLE = "KERASMEMWATCH_RUN"
_STARTUP_DIR = Path(__file__).resolve().parents[2] / "_startup"
_USAGE = "Write `kerasmemwatch run [--log-dir DIR] SCRIPT.py [ARGS...]` or `kerasmemwatch run -m MODULE [ARGS...]`."


def split_arguments(arguments: Sequence[str], log_dir: str = "logs") -> tuple[str, list[str]]:
    """Separate our own option from those of the script, which may have the same name.

    Returns:
        The log directory, and the script (or ``-m`` and a module) with its arguments.

    Raises:
        InvalidArgumentError: If an option is unknown or lacks its value.
    """
    rest = list(arguments)
    while rest and rest[0].startswith("--"):
        option, has_value, value = rest.pop(0).partition("=")
        if option == "--":
            break
        if option != "--log-dir" or not (has_value or rest):
            raise InvalidArgumentError(f"Expected --log-dir DIR. Received: {option}. {_USAGE}")
        log_dir = value if has_value else rest.pop(0)
    return log_dir, rest


def run(argv: Sequence[str], log_dir: str) -> int:
    """Run a script or module with watches. Does not return on systems that can replace a process.

    Args:
        argv: The script and its arguments, or ``["-m", module, ...]``; ``"-"`` is standard input.
        log_dir: Directory (or URL such as ``gs://...``) that receives one run per process that trains.

    Returns:
        On Windows, the script's exit code.

    Raises:
        InvalidArgumentError: If there is no such script, or this interpreter ignores environment variables.
        LogDirError: If ``log_dir`` is a file, or a path is relative to a working directory that was deleted.
        MissingDependencyError: If this installation is incomplete.
    """
    _check_target(argv)
    environment = dict(os.environ)
    if not disabled():
        _check_interpreter()
        _check_startup()
        check_working_dir(log_dir)
        if os.path.exists(log_dir) and not os.path.isdir(log_dir):
            raise LogDirError(f"Expected a directory. Received: log_dir={log_dir!r}, a file. Name another --log-dir.")
        environment = watched_environment(environment, log_dir)
        if sys.stderr and sys.stderr.isatty():
            print(f"kerasmemwatch: recording to {_absolute(log_dir)}", file=sys.stderr)
    return _become([sys.executable, *_interpreter_flags(), *argv], environment)


def watched_environment(environment: Mapping[str, str], log_dir: str) -> dict[str, str]:
    """Make the environment in which TensorFlow counts exactly and Keras is watched, even in child processes.

    Args:
        environment: The variables to start from; the user's own settings for exact counting are kept.
        log_dir: Directory or URL. A relative path is made absolute, because a child may change directories.
    """
    path = environment.get("PYTHONPATH")
    startup = str(_STARTUP_DIR)
    return {
        **environment,
        **exact_variables(environment),
        # An empty entry means the current directory, so an unset path must not be joined.
        "PYTHONPATH": f"{startup}{os.pathsep}{path}" if path else startup,
        RUN_VARIABLE: json.dumps({"log_dir": _absolute(log_dir)}),
    }


def _absolute(log_dir: str) -> str:
    return log_dir if "://" in log_dir else os.path.abspath(log_dir)


def _check_target(argv: Sequence[str]) -> None:
    if not argv or list(argv) == ["-m"]:
        raise InvalidArgumentError(
            f"Expected a script or module to run. Received: {' '.join(argv) or 'nothing'}. {_USAGE}"
        )
    target = argv[0]
    if target.startswith("-") and target not in ("-m", "-"):
        raise InvalidArgumentError(f"Expected a script or -m MODULE. Received: {target}. {_USAGE}")
    if target not in ("-m", "-"):
        check_working_dir(target, "the script")
    if target not in ("-m", "-") and not os.path.exists(target):
        raise InvalidArgumentError(
            f"Expected a script that exists. Received: {target!r}. Check the path; this directory is {os.getcwd()}."
        )


def _check_interpreter() -> None:
    if sys.flags.ignore_environment or sys.flags.no_site:
        raise InvalidArgumentError(
            "Expected an interpreter that reads PYTHONPATH and imports site. Received: python with -I, -E or -S. "
            "Leave the option out."
        )


def _check_startup() -> None:
    # Without this file, the script would run as usual and nothing would be recorded.
    file = _STARTUP_DIR / "sitecustomize.py"
    if not file.is_file():
        raise MissingDependencyError(
            f"Expected the file that starts the watch. Received: {str(file)!r}, which does not exist. The "
            "installation of kerasmemwatch is incomplete: install it again with pip install --force-reinstall."
        )


def _interpreter_flags() -> list[str]:
    """Options that this interpreter was started with, as far as Python keeps them."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    for name, value in sys._xoptions.items():
        option = name if value is True else f"{name}={value}"
        if option not in flags:
            flags += ["-X", option]
    if getattr(sys.stdout, "write_through", False):
        flags.append("-u")
    return flags + ["-i"] * bool(sys.flags.inspect)


def _become(command: list[str], environment: dict[str, str]) -> int:
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    if os.name != "nt":
        os.execve(command[0], command, environment)
    # On Windows, exec returns to the shell at once, so wait instead; only the script handles Ctrl-C.
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return subprocess.run(command, env=environment, check=False).returncode
