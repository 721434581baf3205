"""Environment variables that turn kerasmemwatch, or a part of it, off.

The package's ``__init__`` imports this, so it loads only what Python has loaded already.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EXACT_CPU_VARIABLE", "disabled", "leaves_cpu_alone"]

DISABLE_VARIABLE = "KERASMEMWATCH_DISABLE"
EXACT_CPU_VARIABLE = "KERASMEMWATCH_EXACT_CPU"
_NO = ("0", "false", "no", "off")


def disabled(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether ``KERASMEMWATCH_DISABLE`` turns every watch into a no-op (set, and neither empty nor 0)."""
    return environ.get(DISABLE_VARIABLE, "").strip() not in ("", "0")


def leaves_cpu_alone(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether ``KERASMEMWATCH_EXACT_CPU=0`` keeps TensorFlow's default allocator on a CPU."""
    return environ.get(EXACT_CPU_VARIABLE, "").strip().lower() in _NO
