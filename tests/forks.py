"""Scripts in processes of their own, forked from one that has imported TensorFlow: an import takes 4 seconds each."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

__all__ = ["run_forked"]

ROOT = Path(__file__).parents[1]
_MOST_S = 900


def run_forked(
    script: Path, *arguments: str, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> tuple[int, str, str]:
    """Run a script as ``python SCRIPT ARGUMENTS`` would: its exit status, output and errors.

    Not for what hangs on how a process begins or ends: TensorFlow has read what it reads as it is imported, and
    functions for the exit are not called.

    Args:
        script: The script.
        arguments: Its arguments.
        environment: All of its environment; if not given, this process' own, with exact counting.
        folder: Where it runs; if not given, where this process was when it first asked.
    """
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    asked = [[str(script), *arguments], environment and dict(environment), folder and str(folder)]
    server.stdin.write(json.dumps(asked) + "\n")
    server.stdin.flush()
    answer: tuple[int, str, str] = tuple(json.loads(server.stdout.readline()))
    return answer


@functools.cache
def _server() -> subprocess.Popen[str]:
    """One for this process; it ends with it, as its input does."""
    return subprocess.Popen(
        [sys.executable, __file__],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPU_ALLOCATOR_USE_BFC": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def serve() -> None:
    """Answer each line, a script with its arguments, until there are no more."""
    import keras  # noqa: F401
    import tensorflow  # noqa: F401 -- which starts no thread before it is used

    for line in sys.stdin:
        with contextlib.ExitStack() as exits:
            parts = [os.memfd_create(name) for name in ("out", "err")]
            for part in parts:
                exits.callback(os.close, part)
            pid = os.fork()
            if not pid:
                _run(*json.loads(line), *parts)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            texts = [os.pread(part, os.fstat(part).st_size, 0).decode() for part in parts]
        print(json.dumps([status, *texts]), flush=True)


def _run(arguments: list[str], environment: dict[str, str] | None, folder: str | None, out: int, err: int) -> None:
    """In the forked process, which ends here."""
    status = 1
    signal.alarm(_MOST_S)  # which ends what hangs
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        if environment is not None:
            os.environ.clear()
            os.environ.update(environment)
        os.chdir(folder or ".")
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).parent))
        runpy.run_path(arguments[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
