"""Host memory that this process may use: the smallest of its cgroups' limits and the machine's memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["HostLimit", "LimitSource", "host_limit"]

LimitSource = Literal["cgroup v2", "cgroup v1", "physical memory"]


@dataclass(frozen=True)
class HostLimit:
    """Memory limit of the process, and its source."""

    limit_bytes: int  # beyond this, the kernel kills the process (or the machine swaps)
    source: LimitSource  # where the limit comes from
    physical_bytes: int  # memory of the machine, excluding swap


def host_limit(
    proc_root: Path = Path("/proc"), cgroup_root: Path = Path("/sys/fs/cgroup"), physical_bytes: int | None = None
) -> HostLimit:
    """Find the limit that applies to this process; without a readable cgroup, the machine's memory.

    Args:
        physical_bytes: Memory of the machine; ``None`` asks psutil.

    Returns:
        The smallest limit; the machine's memory if two are equal.
    """
    if physical_bytes is None:
        import psutil

        physical_bytes = int(psutil.virtual_memory().total)
    # A v1 cgroup without a limit reads as a number near 2**63. That exceeds the machine's memory, so "no limit" needs
    # no case of its own.
    limits: list[tuple[int, LimitSource]] = [(physical_bytes, "physical memory")]
    for controllers, path in _memberships(proc_root / "self" / "cgroup"):
        if controllers == "":
            limits += [(size, "cgroup v2") for size in _limits_up(cgroup_root, path, "memory.max")]
        elif "memory" in controllers.split(","):
            limits += [
                (size, "cgroup v1") for size in _limits_up(cgroup_root / "memory", path, "memory.limit_in_bytes")
            ]
    limit_bytes, source = min(limits, key=lambda limit: limit[0])
    return HostLimit(limit_bytes, source, physical_bytes)


def _memberships(cgroup_file: Path) -> list[tuple[str, str]]:
    """Read ``/proc/self/cgroup``: (controllers, path) of each hierarchy; the controllers are ``""`` for v2."""
    try:
        lines = cgroup_file.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    # The path may contain colons: only the first two are separators.
    fields = [line.split(":", 2) for line in lines]
    return [(field[1], field[2]) for field in fields if len(field) == 3]


def _limits_up(root: Path, path: str, filename: str) -> list[int]:
    """Collect the limits of a cgroup and its parents up to the root: all of them apply."""
    parts = [part for part in path.split("/") if part]
    if ".." in parts:
        # The cgroup lies outside the namespace whose root is mounted here; only that root is visible.
        parts = []
    # In a container that shares the host's cgroup namespace, the path is the host's and does not exist below the root.
    # The root is then the container's own cgroup, where the walk up ends in any case.
    files = [root.joinpath(*parts[:depth], filename) for depth in range(len(parts), -1, -1)]
    return [size for size in map(_read_limit, files) if size is not None]


def _read_limit(file: Path) -> int | None:
    """Read one limit; ``None`` for ``max``, or if there is nothing to read."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
