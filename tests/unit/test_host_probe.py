"""Host memory, against psutil and against bytes allocated on purpose."""

from __future__ import annotations

import gc
import json
import math
import mmap
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from kerasmemwatch.errors import ProbeUnavailableError
from kerasmemwatch.probes import host
from kerasmemwatch.probes.base import Probe
from kerasmemwatch.probes.host import HostProbe

MIB = 1024**2
BLOCK = 64 * MIB
# The kernel adds up its counters per CPU lazily, and huge pages round up.
TOLERANCE = 4 * MIB
ROOT = Path(__file__).parents[2]

needs_procfs = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs procfs")


@pytest.fixture(autouse=True)
def _no_other_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    # A watch of an earlier test that failed is kept by its traceback, and all probes share one descriptor.
    monkeypatch.setattr(host, "_open_files", weakref.WeakValueDictionary())


@pytest.fixture
def probe() -> Iterator[HostProbe]:
    probe = HostProbe()
    probe.open()
    yield probe
    probe.close()


def touched(size: int) -> bytearray:
    """Allocate and write every byte: a zeroed block would not be resident yet."""
    return bytearray(b"\x01") * size


def slow(probe: Probe) -> dict[str, float]:
    return dict(zip([column.name for column in probe.slow_columns], probe.epoch_end(), strict=True))


def test_fulfils_the_protocol(probe: HostProbe) -> None:
    as_probe: Probe = probe
    as_probe.batch_begin()
    assert [column.name for column in as_probe.columns] == ["host_rss_bytes"]
    assert len(as_probe.batch_end()) == 1
    assert list(slow(as_probe)) == ["host_rss_peak_bytes", "host_uss_bytes", "host_children_uss_bytes"]


def test_rss_agrees_with_psutil(probe: HostProbe) -> None:
    process = psutil.Process()
    process.memory_info()
    probe.batch_end()
    [rss] = probe.batch_end()
    assert isinstance(rss, float)
    assert abs(rss - process.memory_info().rss) <= 64 * mmap.PAGESIZE


def test_rss_rises_and_falls_with_a_touched_block(probe: HostProbe) -> None:
    [before] = probe.batch_end()
    block = touched(BLOCK)
    [during] = probe.batch_end()
    del block
    [after] = probe.batch_end()
    assert abs(during - before - BLOCK) <= TOLERANCE
    assert abs(during - after - BLOCK) <= TOLERANCE


def test_uss_rises_with_a_touched_block(probe: HostProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    # Earlier tests may have left children, with which it is not read each time.
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: [])
    before = slow(probe)["host_uss_bytes"]
    block = touched(BLOCK)
    during = slow(probe)["host_uss_bytes"]
    del block
    assert abs(during - before - BLOCK) <= TOLERANCE


@needs_procfs
def test_peak_remembers_a_block_that_is_gone(probe: HostProbe) -> None:
    [before] = probe.batch_end()
    # Large enough to rise above the peak of whatever ran earlier in this process.
    size = int(slow(probe)["host_rss_peak_bytes"] - before) + BLOCK
    block = touched(size)
    del block
    [after] = probe.batch_end()
    assert abs(after - before) <= TOLERANCE
    assert abs(slow(probe)["host_rss_peak_bytes"] - (before + size)) <= TOLERANCE


def test_reads_pages_of_the_second_field(tmp_path: Path) -> None:
    self_dir = tmp_path / "self"
    self_dir.mkdir()
    (self_dir / "statm").write_text("18446744073709551615 18446744073709 7 5 0 123 0\n")
    (self_dir / "status").write_bytes(b"Name:\t\xff\nVmHWM:\t     2016 kB\nVmRSS:\t 5 kB\n")
    probe = HostProbe(tmp_path, tmp_path)
    probe.open()
    assert list(probe.batch_end()) == [float(18446744073709 * mmap.PAGESIZE)]
    assert slow(probe)["host_rss_peak_bytes"] == 2016 * 1024
    # A kernel without the line: unknown, not 0.
    (self_dir / "status").write_bytes(b"Name:\tpython\n")
    assert math.isnan(slow(probe)["host_rss_peak_bytes"])
    probe.close()


def test_facts_tell_the_limit(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("0::/\n")
    (tmp_path / "memory.max").write_text("4194304\n")
    probe = HostProbe(tmp_path, tmp_path)
    probe.open()
    assert probe.facts == {
        "limit_bytes": 4 * MIB,
        "limit_source": "cgroup v2",
        "physical_bytes": psutil.virtual_memory().total,
        "page_size": mmap.PAGESIZE,
    }


def test_without_procfs_psutil_is_asked(tmp_path: Path) -> None:
    probe = HostProbe(tmp_path / "absent")
    probe.open()
    [before] = probe.batch_end()
    block = touched(BLOCK)
    [during] = probe.batch_end()
    del block
    assert abs(during - before - BLOCK) <= TOLERANCE
    assert math.isnan(slow(probe)["host_rss_peak_bytes"])
    probe.close()


def test_without_procfs_the_peak_is_that_of_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: SimpleNamespace(rss=5, peak_wset=7))
    probe = HostProbe(tmp_path / "absent")
    probe.open()
    assert list(probe.batch_end()) == [5.0]
    assert slow(probe)["host_rss_peak_bytes"] == 7


def uss(size: int) -> Callable[[], object]:
    return lambda: SimpleNamespace(uss=size)


def raising(error: Exception) -> Callable[[], object]:
    def memory_full_info() -> object:
        raise error

    return memory_full_info


@pytest.mark.parametrize(
    ("children", "expected"),
    [
        ([], 0.0),
        ([uss(10), uss(32)], 42.0),
        ([uss(10), raising(psutil.NoSuchProcess(1)), uss(32)], 42.0),
        ([uss(10), raising(psutil.ZombieProcess(1))], 10.0),
        ([uss(10), raising(psutil.AccessDenied(1)), uss(32)], math.nan),
        ([uss(10), lambda: SimpleNamespace(rss=1)], math.nan),
    ],
    ids=["none", "two", "vanished", "zombie", "denied", "no uss on this system"],
)
def test_children_are_summed(
    probe: HostProbe, monkeypatch: pytest.MonkeyPatch, children: list[Callable[[], object]], expected: float
) -> None:
    def descendants(self: psutil.Process, recursive: bool = False) -> list[SimpleNamespace]:
        assert recursive
        return [SimpleNamespace(memory_full_info=info) for info in children]

    monkeypatch.setattr(psutil.Process, "children", descendants)
    assert slow(probe)["host_children_uss_bytes"] == pytest.approx(expected, abs=0, nan_ok=True)


def test_children_are_read_more_often_than_what_takes_longer(probe: HostProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: [SimpleNamespace(memory_full_info=uss(10))])
    read = [slow(probe) for _ in range(9)]
    assert [number for number, each in enumerate(read) if not math.isnan(each["host_uss_bytes"])] == [0, 4, 8]
    assert {each["host_children_uss_bytes"] for each in read} == {10.0}


def test_own_uss_is_unknown_without_permission(probe: HostProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "memory_full_info", lambda self: raising(psutil.AccessDenied(1))())
    assert math.isnan(slow(probe)["host_uss_bytes"])


CHILD = "import sys; block = bytearray(b'x') * int(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
GRANDCHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[2], sys.argv[1]], check=True)"


@pytest.mark.parametrize("command", [[CHILD, str(BLOCK)], [GRANDCHILD, str(BLOCK), CHILD]], ids=["child", "grandchild"])
def test_real_children_count_until_they_end(probe: HostProbe, command: list[str]) -> None:
    before = slow(probe)["host_children_uss_bytes"]
    # The context closes standard input, which ends the child, and waits for it.
    with subprocess.Popen([sys.executable, "-c", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        during = slow(probe)["host_children_uss_bytes"]
    after = slow(probe)["host_children_uss_bytes"]
    # An interpreter of its own has some MiB besides the block.
    assert BLOCK <= during - before <= BLOCK + 48 * MIB
    assert abs(after - before) <= TOLERANCE


FORK = """
import json, os, sys
import psutil
from kerasmemwatch.probes.host import HostProbe

probe = HostProbe()
probe.open()
kept = probe.batch_end
read_end, write_end = os.pipe()
pid = os.fork()
if pid == 0:
    block = bytearray(b"x") * int(sys.argv[1])
    unopened = kept()[0]
    probe.open()
    values = [unopened, probe.batch_end()[0], psutil.Process().memory_info().rss]
    os.write(write_end, json.dumps(values).encode())
    os._exit(0)
os.waitpid(pid, 0)
kept_by_parent = probe.batch_end
probe.open()
same = probe.batch_end is kept_by_parent
print(json.dumps({
    "child": json.loads(os.read(read_end, 4096)),
    "parent": [probe.batch_end()[0], psutil.Process().memory_info().rss],
    "same": same,
}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@needs_procfs
def test_a_reopened_probe_reads_the_forked_child() -> None:
    # In a fresh interpreter: forking one that has threads is deprecated.
    command = [sys.executable, "-c", FORK, str(BLOCK)]
    told = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    kept, reopened, psutil_says = told["child"]
    assert abs(reopened - psutil_says) <= TOLERANCE
    # Why open() must look at the process id: what was bound before the fork still reads the parent.
    assert reopened - kept >= BLOCK / 2
    # The child closed its copy of the descriptor only.
    assert abs(told["parent"][0] - told["parent"][1]) <= TOLERANCE
    assert told["same"]


def test_open_again_keeps_the_descriptor(probe: HostProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*args: object) -> int:
        raise AssertionError(f"opened again: {args}")

    monkeypatch.setattr(os, "open", unexpected)
    bound = probe.batch_end
    probe.open()
    assert probe.batch_end is bound


@needs_procfs
def test_close_gives_the_descriptor_back_and_may_be_repeated() -> None:
    descriptors = Path("/proc/self/fd")
    before = sorted(os.listdir(descriptors))
    probe = HostProbe()
    probe.open()
    assert len(os.listdir(descriptors)) == len(before) + 1
    probe.close()
    assert sorted(os.listdir(descriptors)) == before
    probe.close()
    assert math.isnan(probe.batch_end()[0])
    probe.open()
    assert probe.batch_end()[0] > MIB
    probe.close()


@needs_procfs
def test_close_survives_a_descriptor_closed_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = HostProbe()
    probe.open()
    closed: list[int] = []

    def close_and_fail(fd: int) -> None:
        closed.append(fd)
        os.closerange(fd, fd + 1)
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(os, "close", close_and_fail)
    probe.close()
    assert len(closed) == 1


def test_close_before_open_does_nothing() -> None:
    probe = HostProbe()
    probe.close()
    assert math.isnan(probe.batch_end()[0])


def test_unavailable_where_nothing_can_read_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: psutil.Process) -> object:
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "memory_info", denied)
    with pytest.raises(ProbeUnavailableError, match="does not report"):
        HostProbe(tmp_path / "absent").open()


def test_import_loads_no_psutil() -> None:
    check = "import sys; import kerasmemwatch.probes.host; print('psutil' in sys.modules, 'mmap' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True, capture_output=True, text=True)
    # The second word shows that the check can see a module that was loaded.
    assert done.stdout.split() == ["False", "True"]


@needs_procfs
def test_a_probe_that_is_garbage_gives_its_descriptor_back() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    probe = HostProbe()
    probe.open()
    del probe
    gc.collect()
    assert sorted(os.listdir("/proc/self/fd")) == before


@needs_procfs
def test_probes_that_are_kept_read_through_one_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    probes = [HostProbe() for _ in range(5)]
    for probe in probes:
        probe.open()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    for probe in probes[:4]:
        probe.close()
    assert probes[4].batch_end()[0] > MIB
    probes[4].close()
    assert len(os.listdir("/proc/self/fd")) == before


@needs_procfs
def test_a_probe_opens_anew_what_others_closed() -> None:
    old, new = HostProbe(), HostProbe()
    old.open()
    # Earlier tests' probes may have some, too, and open theirs anew as well.
    descriptors = list(filter(_is_statm, os.listdir("/proc/self/fd")))
    assert descriptors
    for descriptor in descriptors:
        os.close(int(descriptor))
    new.open()
    assert new.batch_end()[0] > MIB
    new.close()
    old.close()


def _is_statm(descriptor: str) -> bool:
    with suppress(OSError):
        return os.readlink(f"/proc/self/fd/{descriptor}").endswith("/statm")
    return False
