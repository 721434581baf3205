"""kerasmemwatch: exact memory measurements for Keras training.

    import kerasmemwatch as kmw
    model.fit(x, y, callbacks=[kmw.MemoryWatch(log_dir="logs")])

Importing the package loads nothing else; names are resolved on first use. The import makes TensorFlow count every
allocation on a CPU (see ``exact_cpu``), if TensorFlow has not run an operation yet.
"""

from kerasmemwatch import exact_cpu
from kerasmemwatch._version import __version__

exact_cpu.turn_on()

_EXPORTS = {
    "MemoryBudget": "kerasmemwatch.watch.memory_budget",
    "MemorySession": "kerasmemwatch.watch.memory_session",
    "MemoryTape": "kerasmemwatch.watch.tapes.memory_tape",
    "MemoryWatch": "kerasmemwatch.watch.memory_watch",
    "MemWatchError": "kerasmemwatch.errors",
    "Recording": "kerasmemwatch.recording",
    "Report": "kerasmemwatch.reports.report",
    "compare": "kerasmemwatch.comparison",
    "load": "kerasmemwatch.recording",
    "release": "kerasmemwatch.leaks.release",
    "runs": "kerasmemwatch.recording",
    "summary": "kerasmemwatch.watch.model_summary.model_summary",
}

# Packages that are used as they are: `kerasmemwatch.testing.assert_no_growth`.
_PACKAGES = ("testing",)

__all__ = ["__version__", *sorted([*_EXPORTS, *_PACKAGES])]


def __getattr__(name: str) -> object:
    if name not in _EXPORTS and name not in _PACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS, *_PACKAGES})
