"""What is said of child processes that grow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from kerasmemwatch.leaks.causes.case import Case, Rises
from kerasmemwatch.leaks.causes.find import find_causes
from kerasmemwatch.probes.children import Child, list_children
from kerasmemwatch.records.growth import Growth, LeakFinding
from kerasmemwatch.units import MIB

GROWING = Growth(
    "host_children_uss_bytes", "growing", 5e6, "epoch", (4e6, 6e6), 40, None, None, 1e5, "", 12, "USS of children"
)


def told(*listings: tuple[Child, ...]) -> LeakFinding:
    [leak] = find_causes(Case((GROWING,), Rises(rows=400, steps=400, train_steps=400), children=listings))
    assert (leak.cause, leak.rate, leak.unit) == ("worker_processes", 5e6, "epoch")
    return leak


def child(uss_mib: int, rss_mib: int, kind: str = "forked") -> Child:
    return Child(kind, uss_mib * MIB, rss_mib * MIB)


def test_what_children_keep_is_told_from_what_they_copy() -> None:
    keeps = told((child(20, 600),), (child(70, 650),))
    assert "maxtasksperchild" in keeps.fix and "0% had been shared" in keeps.evidence
    assert "1 forked from this process. The largest has 70.0 MiB of its own." in keeps.evidence
    copies = told((child(20, 600),), (child(70, 600),))
    assert "NumPy arrays" in copies.fix and "100% had been shared" in copies.evidence


@pytest.mark.parametrize(
    "listings",
    [
        ((child(70, 650),),),  # one listing
        ((child(20, 600),), (child(70, 650), child(10, 600))),  # another number of children
        ((child(20, 600, "spawned"),), (child(70, 650, "spawned"),)),  # nothing is shared
    ],
)
def test_where_that_is_unknown_it_is_not_said(listings: tuple[tuple[Child, ...], ...]) -> None:
    leak = told(*listings)
    assert "shared" not in leak.evidence and (leak.confidence or 1) < 0.9


def test_children_that_are_gone_are_said_to_be() -> None:
    assert "Child processes: none is left." in told(()).evidence


def test_children_are_listed_with_what_they_are() -> None:
    program = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    forked = os.fork()
    if not forked:
        signal.pause()
    try:
        kinds = [each.kind for each in list_children()]
        assert "forked" in kinds and os.path.basename(sys.executable) in kinds
        assert all(0 < each.uss_bytes <= each.rss_bytes for each in list_children() if each.kind == "forked")
    finally:
        os.kill(forked, signal.SIGKILL)
        os.waitpid(forked, 0)
        program.communicate(b"\n")
