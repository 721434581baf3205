"""``kerasmemwatch doctor``: what can be measured on this machine, and how to close each gap."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

from kerasmemwatch.errors import ProbeUnavailableError
from kerasmemwatch.units import format_bytes

__all__ = ["Finding", "diagnose"]


@dataclass(frozen=True)
class Finding:
    """One thing that can or cannot be measured."""

    what: str  # name of the measurement
    state: str  # `"yes"`, `"partly"` or `"no"`
    detail: str  # the finding
    remedy: str = ""  # how to close the gap; empty if there is none, or if nothing helps


def diagnose() -> list[Finding]:
    """Test each source of measurements. Loads TensorFlow if it is installed."""
    return [*_host(), *_frameworks(), *_devices(), *_driver(), *_own_cost()]


def _host() -> Iterator[Finding]:
    from kerasmemwatch.probes.host import HostProbe

    probe = HostProbe()
    probe.open()
    rss, facts = probe.batch_end()[0], probe.facts
    probe.close()
    yield Finding("Host memory", "yes", f"this process: {format_bytes(rss)} resident")
    limit = f"{format_bytes(facts['limit_bytes'])} ({facts['limit_source']})"  # type: ignore[arg-type]
    yield Finding("Host limit", "yes", limit)


def _frameworks() -> Iterator[Finding]:
    for name in ("tensorflow", "keras", "tensorboard"):
        if importlib.util.find_spec(name) is None:
            remedy = "pip install 'kerasmemwatch[tensorflow]'"
            yield Finding(name, "no", "not installed", remedy)
        else:
            from importlib.metadata import PackageNotFoundError, version

            try:
                yield Finding(name, "yes", version(name))
            except PackageNotFoundError:
                yield Finding(name, "yes", "installed, version unknown")


def _devices() -> Iterator[Finding]:
    if importlib.util.find_spec("tensorflow") is None:
        yield Finding("Device memory", "no", "TensorFlow is not installed", "pip install 'kerasmemwatch[tensorflow]'")
        return
    import tensorflow  # noqa: F401  -- the probe reads it from sys.modules

    from kerasmemwatch.probes.allocators import allocators

    try:
        found = allocators()
    except ProbeUnavailableError as error:
        yield Finding("Device memory", "no", error.reason, error.remedy)
        return
    for device in (one.info for one in found):
        exact = device.counting == "exact"
        detail = (
            "every allocation is counted"
            if exact
            else (f"only allocations of {format_bytes(device.counted_from_bytes)} or more are counted")
        )
        yield Finding(f"Memory of {device.name}", "yes" if exact else "partly", detail, device.remedy)
    yield Finding(
        "Reserved bytes", "no", "TensorFlow reports bytes in use and their peak, not what its allocator reserves"
    )


def _driver() -> Iterator[Finding]:
    from kerasmemwatch.probes.nvml import NvmlProbe

    probe = NvmlProbe()
    try:
        probe.open()
    except ProbeUnavailableError as error:
        yield Finding("GPU driver", "no", error.reason, error.remedy)
        return
    drivers = probe.facts["drivers"]
    probe.close()
    for driver in drivers:  # type: ignore[attr-defined]
        yield Finding("GPU driver", "yes", f"{driver['name']}, {format_bytes(driver['total_bytes'])}")


def _own_cost() -> Iterator[Finding]:
    """Memory of the watch itself: its mapping for rows that are not stored yet."""
    from kerasmemwatch.probes import default_probes
    from kerasmemwatch.sampling.probe_set import ProbeSet
    from kerasmemwatch.storage.files.journal import Journal

    probes = ProbeSet(default_probes("tensorflow"), lambda where, error, consequence: None)
    probes.open()
    journal = Journal(probes.layout)
    detail = f"{format_bytes(journal.size_bytes)} for the newest {journal.capacity:,} rows"
    journal.close()
    probes.close()
    yield Finding("Own memory", "yes", detail)
