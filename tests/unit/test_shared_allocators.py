"""Devices that share an allocator, and devices of other processes, which TensorFlow lists too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import pytest
from fakes import look_up_anew

from kerasmemwatch.probes.allocators import allocators
from kerasmemwatch.probes.tensorflow import TensorFlowProbe

OWN, OTHER = "/job:worker/replica:0/task:1/device:", "/job:worker/replica:0/task:0/device:"
Lists = Callable[[Sequence[str], Sequence[str]], None]


@pytest.fixture
def tensorflow(monkeypatch: pytest.MonkeyPatch) -> Lists:
    """``tensorflow(listed, own)``: it lists devices by their long names, and can read some by their short ones."""

    def install(listed: Sequence[str], own: Sequence[str]) -> None:
        def info(name: str) -> dict[str, int]:
            if name not in own:
                raise ValueError(f"No matching device found for '{name}'")
            return {"current": 0, "peak": 0}

        fake = ModuleType("tensorflow")
        fake.errors = SimpleNamespace(OpError=ArithmeticError)
        fake.device = lambda name: nullcontext()
        fake.convert_to_tensor = lambda values: object()
        fake.config = SimpleNamespace(
            list_logical_devices=lambda kind: [SimpleNamespace(name=name) for name in listed if f":{kind}:" in name],
            list_physical_devices=lambda kind: [],
            experimental=SimpleNamespace(get_memory_info=info, reset_memory_stats=lambda name: None),
        )
        monkeypatch.setitem(sys.modules, "tensorflow", fake)
        # Where the real one has been loaded, its private parts are not the fake's.
        for name in [name for name in sys.modules if name.startswith("tensorflow.")]:
            monkeypatch.delitem(sys.modules, name)
        look_up_anew(monkeypatch)

    return install


def test_devices_of_other_workers_are_not_ours(tensorflow: Lists) -> None:
    listed = [f"{place}{name}" for place in (OTHER, OWN) for name in ("CPU:0", "GPU:0")]
    tensorflow([*listed, f"{OTHER}GPU:1", f"{OTHER}CPU:1"], ["CPU:0", "GPU:0"])
    found = allocators()
    assert [(one.info.name, one.shared_by) for one in found] == [("GPU:0", ()), ("CPU:0", ())]
    probe = TensorFlowProbe()
    probe.open()
    assert "note" not in probe.facts
    probe.close()


def test_who_shares_the_cpus_allocator_is_told(tensorflow: Lists) -> None:
    names = [f"CPU:{index}" for index in range(3)]
    tensorflow([f"/device:{name}" for name in names], names)
    [cpu] = allocators()
    assert (cpu.info.name, cpu.shared_by) == ("CPU:0", ("CPU:0", "CPU:1", "CPU:2"))
    probe = TensorFlowProbe()
    probe.open()
    assert probe.facts["note"] == (
        "CPU:0 and CPU:1 and CPU:2 share one allocator; the column of CPU:0 counts all replicas."
    )
    probe.close()
