"""What shapes a measurement: versions and configuration, read without loading or initialising anything."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from kerasmemwatch._version import __version__

__all__ = ["configuration", "disabled", "versions"]

DISABLE_VARIABLE = "KERASMEMWATCH_DISABLE"
# The schedule, and with it the peak, depends on these.
_VARIABLES = (
    "TF_CPU_ALLOCATOR_USE_BFC",
    "TF_CPU_BFC_MEM_LIMIT_IN_MB",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_FORCE_GPU_ALLOW_GROWTH",
    "TF_GPU_ALLOCATOR",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_XLA_FLAGS",
    "CUDA_VISIBLE_DEVICES",
)


def disabled() -> bool:
    """Whether ``KERASMEMWATCH_DISABLE`` turns every watch into a no-op (set, and neither empty nor 0)."""
    return os.environ.get(DISABLE_VARIABLE, "").strip() not in ("", "0")


def versions() -> dict[str, str]:
    """Versions of Python, the operating system, this package and the loaded frameworks."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "kerasmemwatch": __version__}
    for name in ("keras", "tensorflow", "jax", "torch", "numpy"):
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:
            found[name] = str(version)
    return found


def configuration() -> dict[str, Any]:
    """Environment variables that are set and settings of the frameworks that are loaded."""
    found: dict[str, Any] = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    keras = sys.modules.get("keras")
    if keras is not None:
        found["backend"] = keras.config.backend()
        found["dtype_policy"] = keras.config.dtype_policy().name
    tf = sys.modules.get("tensorflow")
    if tf is not None:
        found["inter_op_threads"] = tf.config.threading.get_inter_op_parallelism_threads()
        found["intra_op_threads"] = tf.config.threading.get_intra_op_parallelism_threads()
    found["cpu_count"] = os.cpu_count()
    return found
