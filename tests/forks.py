"""Scripts in processes of their own, forked from one that has imported TensorFlow: an import takes 4 seconds each."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import IO

from protocols import know_protocols

__all__ = ["Forked", "begin_forked", "plain_environment", "run_forked", "start_forked"]

ROOT = Path(__file__).parents[1]
_MOST_S = 900
_MOST_BYTES = 2**20
# TensorFlow reads these as it is imported, so what differs in them has a server of its own.
_AT_IMPORT = ("TF_ENABLE_ONEDNN_OPTS",)


def plain_environment(**changes: str) -> dict[str, str]:
    """This process's variables without those that set how TensorFlow, Keras or kerasmemwatch work, and some more.

    oneDNN is on, whatever TensorFlow makes of the CPU: without it no allocator of a CPU counts in part.
    """
    ours = ("KERASMEMWATCH", "TF_", "KERAS")
    base = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    base |= {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    return {**base, "TF_ENABLE_ONEDNN_OPTS": "1", **changes}


class Forked:
    """A started script. What it has of ``subprocess.Popen`` does the same as there."""

    def __init__(self, server: _Server, asked: list[object], files: list[int]) -> None:
        self._server = server
        self.pid = int(server.ask(asked, files))
        self.returncode: int | None = None
        self.stdin: IO[str] | None = None
        self.stdout: IO[str] | None = None

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status. What takes too long is ended by the script's own alarm, whatever the timeout."""
        if self.returncode is None:
            self.returncode = int(self._server.ask(self.pid))
        return self.returncode

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, None]:
        """Give it the input, and read what it says to its end."""
        with contextlib.suppress(BrokenPipeError):
            if self.stdin and not self.stdin.closed:
                if input:
                    self.stdin.write(input)
                self.stdin.close()
        said = ""
        if self.stdout and not self.stdout.closed:
            said = self.stdout.read()
            self.stdout.close()
        self.wait()
        return said, None


def run_forked(
    script: Path, *arguments: str, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> tuple[int, str, str]:
    """Run a script as ``python SCRIPT ARGUMENTS`` would: its exit status, output and errors.

    It ends as a process of its own does, too; but TensorFlow has read what it reads as it is imported.

    Args:
        script: The script.
        arguments: Its arguments.
        environment: All of its environment; if not given, this process' own, with exact counting.
        folder: Where it runs; if not given, where this process was when it first asked.
    """
    return begin_forked(script, *arguments, environment=environment, folder=folder)()


def begin_forked(
    script: Path, *arguments: str, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Callable[[], tuple[int, str, str]]:
    """Start a script as ``run_forked`` does; what this returns waits for its end. Several may run side by side."""
    with open(os.devnull) as nothing:
        out, errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 -- closed as it ends
        started = _started(script, arguments, environment, folder, [each.fileno() for each in (nothing, out, errors)])

    @functools.cache
    def end() -> tuple[int, str, str]:
        status = started.wait()
        texts = []
        for file in (out, errors):
            with file:
                file.seek(0)
                texts.append(file.read().decode())
        return status, texts[0], texts[1]

    return end


def start_forked(script: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Forked:
    """Start a script as ``run_forked`` does, with its input and output in pipes."""
    theirs_in, ours_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    try:
        started = _started(script, arguments, environment, None, [theirs_in, theirs_out, sys.__stderr__.fileno()])
    finally:
        os.close(theirs_in)
        os.close(theirs_out)
    started.stdin, started.stdout = os.fdopen(ours_in, "w"), os.fdopen(ours_out)
    return started


def _started(
    script: Path,
    arguments: tuple[str, ...],
    environment: Mapping[str, str] | None,
    folder: Path | None,
    files: list[int],
) -> Forked:
    variables = os.environ if environment is None else environment
    server = _server(tuple(variables.get(name) for name in _AT_IMPORT))
    asked = [[str(script), *arguments], environment and dict(environment), folder and str(folder)]
    return Forked(server, asked, files)


class _Server:
    """A process that has imported TensorFlow, and forks itself when it is asked to."""

    def __init__(self, at_import: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        left = {name: value for name, value in os.environ.items() if name not in _AT_IMPORT}
        ours = {"PYTHONPATH": str(ROOT), "TF_CPU_ALLOCATOR_USE_BFC": "1", "CUDA_VISIBLE_DEVICES": ""}
        # It ends as the other end of its socket closes, which is with this process.
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            env={**left, **ours, **at_import},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        theirs.close()

    def ask(self, what: object, files: list[int] | None = None) -> str:
        socket.send_fds(self._socket, [json.dumps(what).encode()], files or [])
        answer = self._socket.recv(_MOST_BYTES)
        assert answer, f"the server ended: {self._process.wait()}"
        return answer.decode()


@functools.cache
def _server(at_import: tuple[str | None, ...]) -> _Server:
    values = zip(_AT_IMPORT, at_import, strict=True)
    return _Server({name: value for name, value in values if value is not None})


def serve(connection: socket.socket) -> CodeType | None:
    """Answer until nobody asks any more.

    A number is a process to wait for, the answer its exit status. Anything else is a script to run, the answer the
    number of the process that does; there, this returns the script.
    """
    import keras  # noqa: F401
    import tensorflow  # noqa: F401 -- which starts no thread before it is used

    know_protocols()
    gc.freeze()  # else each process that ends searches all that was imported for garbage
    for asked, files in _questions(connection):
        if isinstance(asked, int):
            answer = os.waitstatus_to_exitcode(os.waitpid(asked, 0)[1])
        else:
            answer = os.fork()
            if not answer:
                connection.close()
                return _prepared(*asked, files)
            for file in files:
                os.close(file)
        connection.send(str(answer).encode())
    return None


def _questions(connection: socket.socket) -> Iterator[tuple[object, list[int]]]:
    while True:
        said, files, *_ = socket.recv_fds(connection, _MOST_BYTES, 3)
        if not said:
            return
        yield json.loads(said), files


def _prepared(
    arguments: list[str], environment: dict[str, str] | None, folder: str | None, files: list[int]
) -> CodeType:
    """Make the forked process what a new one would be, and read its script."""
    signal.alarm(_MOST_S)  # which ends what hangs
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    os.chdir(folder or ".")
    sys.argv[:] = arguments
    sys.path[0] = str(Path(arguments[0]).parent)
    return compile(Path(arguments[0]).read_text(), arguments[0], "exec")


if __name__ == "__main__":
    _script = serve(socket.socket(fileno=int(sys.argv[1])))
    if _script is not None:
        for _name in [name for name in vars() if not name.startswith("_")]:
            del vars()[_name]
        __file__ = _script.co_filename
        exec(_script)
