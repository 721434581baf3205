"""File operations on log dirs, local or remote (``gs://``, ``s3://``, through TensorBoard's interface)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Protocol

from kerasmemwatch.compat.tensorboard import FILE_INTERFACE
from kerasmemwatch.errors import LogDirError

__all__ = [
    "AppendFile",
    "check_log_dir",
    "check_working_dir",
    "is_remote",
    "join",
    "make_new_dir",
    "open_for_append",
    "read_bytes",
    "walk",
]


class AppendFile(Protocol):
    """A file that grows by whole pieces."""

    def append(self, data: bytes) -> None:
        """Write all of ``data``, or raise ``OSError`` and leave the file unchanged."""

    def close(self) -> None:
        """Close it."""

    def rest(self) -> None:
        """Release the descriptor if possible; the next ``append`` opens another."""

    def disown(self) -> None:
        """Close it without writing, because another process has it open."""

    def discard(self) -> None:
        """Close and remove it, as far as possible."""


def is_remote(path: str) -> bool:
    """Whether a path names a remote file system."""
    return "://" in path


def join(*parts: str) -> str:
    """Join path parts; with forward slashes on a remote file system."""
    return "/".join(part.rstrip("/") for part in parts) if is_remote(parts[0]) else os.path.join(*parts)


def check_working_dir(path: str, name: str = "log_dir") -> None:
    """Check that a relative path is usable, that is, that the working directory still exists.

    Raises:
        LogDirError: If the working directory was deleted.
    """
    if is_remote(path) or os.path.isabs(path):
        return
    try:
        os.getcwd()
    except OSError as error:
        raise LogDirError(
            f"Expected {name} to be absolute, or the working directory to exist. "
            f"Received: {name}={path!r} in a working directory that cannot be found ({error.strerror}). "
            "Give an absolute path, or change to another directory."
        ) from None


def check_log_dir(log_dir: str) -> None:
    """Check early that a log dir is usable.

    Raises:
        LogDirError: If a file is in the way, the directory is not writable, or the working directory is gone.
    """
    if is_remote(log_dir):
        return
    check_working_dir(log_dir)
    existing = os.path.abspath(log_dir)
    while not os.path.lexists(existing) and os.path.dirname(existing) != existing:
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        raise LogDirError(
            f"Expected log_dir to be a directory, or to be created as one. Received: log_dir={log_dir!r}, where "
            f"{existing!r} is a file. Choose another directory, or log_dir=None to write nothing."
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise LogDirError(
            f"Expected a log_dir that may be written to. Received: log_dir={log_dir!r}, where {existing!r} is not "
            "writable by this user. Choose another directory, or log_dir=None to write nothing."
        )


def make_new_dir(path: str) -> bool:
    """Create a directory and its parents; return ``False`` if it exists already."""
    if is_remote(path):
        gfile = _gfile()
        if gfile.exists(path):
            return False
        gfile.makedirs(path)
        return True
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    return True


def walk(top: str) -> Iterator[tuple[str, list[str]]]:
    """Yield directories below ``top`` with the names of their files; links to directories are not followed."""
    walked = _gfile().walk(top) if is_remote(top) else os.walk(top)
    for directory, _, names in walked:
        yield str(directory), list(names)


def read_bytes(path: str, most: int = -1) -> bytes:
    """Read a file, or its first bytes.

    Raises:
        OSError: If it cannot be read, or is not a regular file: reading a pipe would block.
    """
    if is_remote(path):
        with _gfile().GFile(path, "rb") as file:
            data = bytes(file.read())  # the two possible interfaces differ in how a partial read is requested
            return data if most < 0 else data[:most]
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"Expected a file. Received: {path!r}.")
    with open(path, "rb") as file:
        return file.read(most)


def open_for_append(path: str) -> AppendFile:
    """Create a file to append to."""
    return _RemoteFile(path) if is_remote(path) else _LocalFile(path)


class _LocalFile:
    def __init__(self, path: str) -> None:
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115 -- it stays open
        self._size = 0
        self._counts_links = os.fstat(self._file.fileno()).st_nlink > 0

    def append(self, data: bytes) -> None:
        if self._file.closed:
            self._reopen()
        if self._counts_links and not os.fstat(self._file.fileno()).st_nlink:
            raise FileNotFoundError(f"{self._file.name!r} was removed")  # writing would succeed and be lost
        view = memoryview(data)
        try:
            while view:
                # A short write is the first sign of a full disk.
                view = view[self._file.write(view) or 0 :]
        except BaseException:  # including KeyboardInterrupt
            self._file.truncate(self._size)
            self._file.seek(self._size)
            raise
        self._size += len(data)

    def close(self) -> None:
        self._file.close()

    def rest(self) -> None:
        self._file.close()

    def _reopen(self) -> None:
        file = open(self._file.name, "r+b", buffering=0)  # noqa: SIM115 -- it stays open
        # Anything beyond our end is a partial write that could not be undone.
        file.truncate(self._size)
        file.seek(self._size)
        self._file = file

    def disown(self) -> None:
        self._file.close()  # it has no buffer

    def discard(self) -> None:
        self._file.close()
        with suppress(OSError):
            os.unlink(self._file.name)


class _RemoteFile:
    def __init__(self, path: str) -> None:
        self._file = _gfile().GFile(path, "wb")

    def append(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError:
            raise
        except Exception as error:  # TensorFlow's own OpError family
            raise OSError(str(error)) from error

    def close(self) -> None:
        self._file.close()

    def rest(self) -> None:
        pass  # a remote file cannot be reopened for appending

    def disown(self) -> None:
        pass  # closing it would write the parent's buffered data

    def discard(self) -> None:
        with suppress(Exception):
            self._file.close()
            _gfile().remove(self._file.name)


def _gfile() -> Any:
    return FILE_INTERFACE.get().io.gfile
