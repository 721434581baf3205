"""Exact counting on a CPU, by an allocator of TensorFlow's that two environment variables select.

TensorFlow reads them when it creates its context, at the first operation, so they may be set after its import. The
package's ``__init__`` does so, and this module therefore loads only what Python has loaded already.
"""

from __future__ import annotations

import os
import sys

from kerasmemwatch.compat.tensorflow import CURRENT_CONTEXT, IS_INITIALIZED
from kerasmemwatch.switches import EXACT_CPU_VARIABLE, disabled, leaves_cpu_alone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ALLOCATOR_VARIABLE", "LIMIT_VARIABLE", "exact_variables", "is_ours", "remedy", "turn_on"]

ALLOCATOR_VARIABLE = "TF_CPU_ALLOCATOR_USE_BFC"
LIMIT_VARIABLE = "TF_CPU_BFC_MEM_LIMIT_IN_MB"
# The variables we set and their values: a child process inherits them, where they are not the user's either.
_OURS_VARIABLE = "KERASMEMWATCH_EXACT_CPU_SET"
# Modules that load the plugin's entry point, and with it this package.
_TENSORBOARD = ("tensorboard.default", "tensorboard.program")
# Used where the system does not report its memory: 16 TiB, which is no limit. The allocator does not reserve it.
_NO_LIMIT_MIB = 1 << 24
_MIB = 1 << 20


def turn_on() -> None:
    """Set ``exact_variables`` in this process, unless it is too late or TensorBoard loads the package."""
    if _is_tensorboard() or _context_exists():
        return
    ours = [name for name in (ALLOCATOR_VARIABLE, LIMIT_VARIABLE) if is_ours(name)]
    variables = exact_variables(os.environ)
    for name in ours:
        if name not in variables:  # inherited, and turned off in this process
            del os.environ[name]
            os.environ.pop(_OURS_VARIABLE, None)
    os.environ.update(variables)


def exact_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that make TensorFlow count every allocation on a CPU.

    The counting allocator is limited to 64 GiB by default, so its limit is set to the machine's memory.

    Args:
        environ: Environment variables; the user's own settings are kept.

    Returns:
        Variables to add; none if the user has turned exact counting off.
    """
    if disabled(environ) or leaves_cpu_alone(environ):
        return {}
    found = {}
    if _is_unset(ALLOCATOR_VARIABLE, environ):
        found[ALLOCATOR_VARIABLE] = "1"
    elif not _is_true(environ[ALLOCATOR_VARIABLE]):
        return {}
    if _is_unset(LIMIT_VARIABLE, environ):
        found[LIMIT_VARIABLE] = str(_machine_mib())
    if found:
        found[_OURS_VARIABLE] = " ".join(f"{name}={value}" for name, value in found.items())
    return found


def is_ours(name: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this package set a variable's current value, here or in a parent process."""
    return name in environ and f"{name}={environ[name]}" in environ.get(_OURS_VARIABLE, "").split()


def remedy(environ: Mapping[str, str] = os.environ) -> str:
    """How to count every allocation on a CPU, for a process that does not."""
    if leaves_cpu_alone(environ):
        return f"Start Python without {EXACT_CPU_VARIABLE}={environ[EXACT_CPU_VARIABLE]}."
    value = environ.get(ALLOCATOR_VARIABLE, "1")
    if not _is_true(value):
        return f"Start Python with {ALLOCATOR_VARIABLE}=1, or without that variable. It is {value!r}."
    if _is_tensorboard() and not is_ours(ALLOCATOR_VARIABLE, environ):
        return f"Set {ALLOCATOR_VARIABLE}=1 before the first model. Next to TensorBoard, the import does not set it."
    return (
        "Import kerasmemwatch before the first model (TensorFlow chooses its allocator at its first operation), start "
        f"the script with `kerasmemwatch run SCRIPT.py`, or set {ALLOCATOR_VARIABLE}=1."
    )


def _is_unset(name: str, environ: Mapping[str, str]) -> bool:
    return name not in environ or is_ours(name, environ)


def _is_true(value: str) -> bool:
    return value.strip().lower() in ("1", "true")


def _is_tensorboard() -> bool:
    return any(name in sys.modules for name in _TENSORBOARD)


def _context_exists() -> bool:
    """Whether TensorFlow has created its context, and with it its allocators; checked without loading anything."""
    context = CURRENT_CONTEXT.if_loaded()
    return bool(IS_INITIALIZED.of(context, context is not None))


def _machine_mib() -> int:
    """The machine's memory including swap space, in MiB, rounded up."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return _NO_LIMIT_MIB
    return -(-(memory + _swap_bytes()) // _MIB) if memory > 0 else _NO_LIMIT_MIB


def _swap_bytes() -> int:
    try:
        with open("/proc/meminfo", "rb") as file:
            lines = file.read().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(b"SwapTotal:")), 0)
    except (OSError, ValueError, IndexError):
        return 0
