"""Probe of this process's host memory: RSS at each batch; USS, also the children's, at epoch ends."""

from __future__ import annotations

import mmap
import os
import re
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kerasmemwatch.errors import ProbeUnavailableError
from kerasmemwatch.probes.base import UNKNOWN, begin_nothing
from kerasmemwatch.probes.limits import host_limit
from kerasmemwatch.records.samples import Column
from kerasmemwatch.units import KIB

if TYPE_CHECKING:
    import psutil

__all__ = ["HostProbe"]

_OWN_EVERY = 4
_PEAK_RSS = re.compile(rb"^VmHWM:\s*(\d+) kB", re.MULTILINE)


class HostProbe:
    """Reads this process's memory from the operating system.

    Resident bytes (RSS) are the kernel's running count, which may lag by some pages per CPU and includes pages shared
    with children. Unique bytes (USS) are exact, include only pages of this process alone, and take milliseconds.

    Args:
        proc_root: Where procfs is mounted. Without it (macOS, Windows), psutil is used instead.

    Attributes:
        batch_end: Reads ``columns``. Each ``open`` in a new process replaces it: look it up again after ``open``, and
            do not call one obtained before ``close``.
    """

    name = "host"
    columns: tuple[Column, ...] = (Column("host_rss_bytes"),)
    slow_columns: tuple[Column, ...] = (
        Column("host_rss_peak_bytes"),
        Column("host_uss_bytes"),
        Column("host_children_uss_bytes"),
    )

    # The operating system has no peak that can be reset per batch.
    batch_begin = staticmethod(begin_nothing)

    def __init__(self, proc_root: Path = Path("/proc"), cgroup_root: Path = Path("/sys/fs/cgroup")) -> None:
        self.facts: dict[str, object] = {}
        self.batch_end: Callable[[], Sequence[float]] = _read_nothing
        self._proc_root = proc_root
        self._cgroup_root = cgroup_root
        self._pid: int | None = None
        self._num_slow = 0

    def open(self) -> None:
        """Bind the fast reader to this process, unless it is bound already.

        Raises:
            ProbeUnavailableError: If neither procfs nor psutil can read this process.
        """
        pid = os.getpid()
        # An open /proc/self/statm belongs to the process that opened it: after a fork, it reads the parent.
        if pid == self._pid:
            return
        self.close()
        # For the slow columns: the first read's time, which decides when the next one is due, is not to include it.
        import psutil  # noqa: F401

        try:
            self.batch_end = _statm_reader(_statm(self._proc_root / "self" / "statm"))
        except OSError:
            self.batch_end = _psutil_reader()
        limit = host_limit(self._proc_root, self._cgroup_root)
        self.facts = {
            "limit_bytes": limit.limit_bytes,
            "limit_source": limit.source,
            "physical_bytes": limit.physical_bytes,
            "page_size": mmap.PAGESIZE,
        }
        self._pid = pid

    def epoch_end(self) -> Sequence[float]:
        """Read ``slow_columns``: three floats, NaN for figures that this system does not report.

        While there are children, this process's own USS is read each fourth time only. It takes longer than theirs,
        and reads may take a share of the time: children that grow would be seen too late.
        """
        import psutil

        process = psutil.Process()
        children = process.children(recursive=True)
        is_own_due = not children or self._num_slow % _OWN_EVERY == 0
        self._num_slow += 1
        uss = _uss(process) if is_own_due else UNKNOWN
        return _peak_rss(self._proc_root, process), uss, _total_uss(children)

    def close(self) -> None:
        """Release the open file. May be called twice, or never: the file is closed with the probe."""
        self.batch_end, self._pid = _read_nothing, None


def _read_nothing() -> tuple[float]:
    return (UNKNOWN,)


class _Descriptor:
    """A file that stays open until this is garbage collected. Raises ``OSError`` if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)
        weakref.finalize(self, _close, self.number).atexit = False


def _close(descriptor: int) -> None:
    with suppress(OSError):  # already closed, for example by a daemonizing library
        os.close(descriptor)


# By process and path. All probes share one descriptor: a search may keep the watches of thousands of fits.
_open_files: weakref.WeakValueDictionary[tuple[int, Path], _Descriptor] = weakref.WeakValueDictionary()


def _statm(path: Path) -> _Descriptor:
    """This process's ``statm``, opened once. Raises ``OSError`` if it cannot be opened."""
    key = os.getpid(), path
    found = _open_files.get(key)
    with suppress(OSError, IndexError):
        if found is not None and _statm_reader(found)():
            return found
    _open_files[key] = opened = _Descriptor(path)  # the first, or the old one was closed elsewhere
    return opened


def _statm_reader(file: _Descriptor) -> Callable[[], tuple[float]]:
    """Make a reader with all that it needs bound as locals: it runs after each batch."""
    pread, number = os.pread, file.number
    page_bytes = float(mmap.PAGESIZE)

    def read(file: _Descriptor = file) -> tuple[float]:  # the default keeps the file open
        # The fields are page counts: total size, resident, ... 64 bytes always hold the first two.
        return (float(pread(number, 64, 0).split(b" ", 2)[1]) * page_bytes,)

    return read


def _psutil_reader() -> Callable[[], tuple[float]]:
    import psutil

    try:
        memory_info = psutil.Process().memory_info
        memory_info()
    except psutil.Error as error:
        raise ProbeUnavailableError(
            f"The operating system does not report the memory of this process ({error})."
        ) from error
    return lambda: (float(memory_info().rss),)


def _peak_rss(proc_root: Path, process: psutil.Process) -> float:
    # Not getrusage: its maximum survives exec, so it can be the peak of the shell that started Python.
    try:
        match = _PEAK_RSS.search((proc_root / "self" / "status").read_bytes())
    except OSError:
        # psutil reports a peak only on Windows.
        return float(getattr(process.memory_info(), "peak_wset", UNKNOWN))
    return float(match[1]) * KIB if match else UNKNOWN


def _total_uss(children: Sequence[psutil.Process]) -> float:
    """Sum over all descendants. USS, because RSS would count the pages shared with us once for each."""
    import psutil

    total = 0.0
    for child in children:
        try:
            total += _uss(child)
        except psutil.NoSuchProcess:
            continue  # it ended since the listing
    return total


def _uss(process: psutil.Process) -> float:
    """Bytes of this process alone; NaN where the system denies access or does not count them."""
    import psutil

    try:
        return float(getattr(process.memory_full_info(), "uss", UNKNOWN))
    except psutil.AccessDenied:
        return UNKNOWN
