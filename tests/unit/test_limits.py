"""The limit of this process, from fake proc and cgroup trees."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from kerasmemwatch.probes.limits import HostLimit, host_limit

GIB = 1024**3
PHYSICAL = 64 * GIB
V1_UNLIMITED = 9223372036854771712


class FakeMachine:
    """Writes /proc/self/cgroup and cgroup files under a temporary directory."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.cgroup = root / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.cgroup.mkdir()

    def belongs_to(self, *lines: str) -> None:
        (self.proc / "self" / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def write(self, path: str, text: object) -> None:
        file = self.cgroup / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def limit(self) -> HostLimit:
        return host_limit(self.proc, self.cgroup, PHYSICAL)


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path)


def test_v2_limit_of_own_cgroup(machine: FakeMachine) -> None:
    machine.belongs_to("0::/jobs/train")
    machine.write("jobs/train/memory.max", 8 * GIB)
    assert machine.limit() == HostLimit(8 * GIB, "cgroup v2", PHYSICAL)


@pytest.mark.parametrize("tightest", ["a/b/c", "a/b", "a", "."])
def test_v2_smallest_limit_on_the_way_up_wins(machine: FakeMachine, tightest: str) -> None:
    machine.belongs_to("0::/a/b/c")
    for directory in ("a/b/c", "a/b", "a", "."):
        machine.write(f"{directory}/memory.max", 2 * GIB if directory == tightest else 9 * GIB)
    assert machine.limit() == HostLimit(2 * GIB, "cgroup v2", PHYSICAL)


def test_v2_sibling_and_child_do_not_bind(machine: FakeMachine) -> None:
    machine.belongs_to("0::/a/b")
    machine.write("a/b/memory.max", 9 * GIB)
    machine.write("a/b/child/memory.max", GIB)
    machine.write("a/sibling/memory.max", GIB)
    assert machine.limit().limit_bytes == 9 * GIB


def test_v2_max_is_no_limit(machine: FakeMachine) -> None:
    machine.belongs_to("0::/a/b")
    machine.write("a/b/memory.max", "max")
    machine.write("a/memory.max", 3 * GIB)
    assert machine.limit() == HostLimit(3 * GIB, "cgroup v2", PHYSICAL)
    machine.write("a/memory.max", "max")
    assert machine.limit() == HostLimit(PHYSICAL, "physical memory", PHYSICAL)


def test_v2_memory_high_is_not_a_limit(machine: FakeMachine) -> None:
    machine.belongs_to("0::/a")
    machine.write("a/memory.max", 5 * GIB)
    machine.write("a/memory.high", GIB)
    assert machine.limit().limit_bytes == 5 * GIB


@pytest.mark.parametrize("path", ["/docker/0123abcd", "/../host.slice/job", "/"])
def test_v2_container_sees_its_own_cgroup_as_the_root(machine: FakeMachine, path: str) -> None:
    machine.belongs_to(f"0::{path}")
    machine.write("memory.max", 4 * GIB)
    assert machine.limit() == HostLimit(4 * GIB, "cgroup v2", PHYSICAL)


def test_a_path_never_leads_out_of_the_cgroup_root(machine: FakeMachine) -> None:
    machine.belongs_to("0::/../outside")
    (machine.cgroup.parent / "outside").mkdir()
    (machine.cgroup.parent / "outside" / "memory.max").write_text("1024\n")
    assert machine.limit().source == "physical memory"


def test_v2_path_may_hold_colons(machine: FakeMachine) -> None:
    machine.belongs_to("0::/job:7:train")
    machine.write("job:7:train/memory.max", 6 * GIB)
    assert machine.limit().limit_bytes == 6 * GIB


@pytest.mark.parametrize("controllers", ["memory", "memory,hugetlb", "cpu,memory"])
def test_v1_limit_of_own_cgroup_and_parents(machine: FakeMachine, controllers: str) -> None:
    machine.belongs_to("5:devices:/other", f"4:{controllers}:/jobs/train", "1:name=systemd:/x")
    machine.write("memory/jobs/train/memory.limit_in_bytes", 7 * GIB)
    machine.write("memory/memory.limit_in_bytes", V1_UNLIMITED)
    assert machine.limit() == HostLimit(7 * GIB, "cgroup v1", PHYSICAL)
    machine.write("memory/jobs/memory.limit_in_bytes", 3 * GIB)
    assert machine.limit() == HostLimit(3 * GIB, "cgroup v1", PHYSICAL)


@pytest.mark.parametrize("size", [V1_UNLIMITED, PHYSICAL + 1, PHYSICAL])
def test_v1_limit_not_below_physical_memory_is_none(machine: FakeMachine, size: int) -> None:
    machine.belongs_to("4:memory:/job")
    machine.write("memory/job/memory.limit_in_bytes", size)
    assert machine.limit() == HostLimit(PHYSICAL, "physical memory", PHYSICAL)


def test_v1_container_sees_its_own_cgroup_as_the_root(machine: FakeMachine) -> None:
    machine.belongs_to("4:memory:/docker/0123abcd")
    machine.write("memory/memory.limit_in_bytes", 4 * GIB)
    assert machine.limit() == HostLimit(4 * GIB, "cgroup v1", PHYSICAL)


def test_other_v1_controllers_do_not_bind(machine: FakeMachine) -> None:
    machine.belongs_to("3:memory_other,cpuset:/job")
    machine.write("memory/job/memory.limit_in_bytes", GIB)
    assert machine.limit().source == "physical memory"


def test_hybrid_takes_the_smaller_of_both_versions(machine: FakeMachine) -> None:
    machine.belongs_to("4:memory:/job", "0::/job")
    machine.write("memory/job/memory.limit_in_bytes", 5 * GIB)
    machine.write("job/memory.max", 6 * GIB)
    assert machine.limit() == HostLimit(5 * GIB, "cgroup v1", PHYSICAL)
    machine.write("job/memory.max", 4 * GIB)
    assert machine.limit() == HostLimit(4 * GIB, "cgroup v2", PHYSICAL)


@pytest.mark.parametrize("text", ["", "lots", "1 2"])
def test_unreadable_numbers_fall_back_to_physical_memory(machine: FakeMachine, text: str) -> None:
    machine.belongs_to("not a cgroup line", "0::/job")
    machine.write("job/memory.max", text)
    assert machine.limit() == HostLimit(PHYSICAL, "physical memory", PHYSICAL)


def test_unreadable_files_fall_back_to_physical_memory(machine: FakeMachine) -> None:
    assert machine.limit() == HostLimit(PHYSICAL, "physical memory", PHYSICAL)
    # A directory in a file's place cannot be read by anybody, root included.
    machine.belongs_to("0::/job")
    (machine.cgroup / "job" / "memory.max").mkdir(parents=True)
    assert machine.limit() == HostLimit(PHYSICAL, "physical memory", PHYSICAL)


def test_physical_memory_defaults_to_the_machine(tmp_path: Path) -> None:
    total = psutil.virtual_memory().total
    assert host_limit(tmp_path, tmp_path) == HostLimit(total, "physical memory", total)


def test_the_real_machine_has_a_limit_within_its_memory() -> None:
    limit = host_limit()
    assert 0 < limit.limit_bytes <= limit.physical_bytes == psutil.virtual_memory().total
