"""Versions and configuration that affect a measurement, read without loading or initialising anything."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Collection, Mapping
from typing import Any

from kerasmemwatch._version import __version__
from kerasmemwatch.exact_cpu import ALLOCATOR_VARIABLE, LIMIT_VARIABLE, is_ours
from kerasmemwatch.records.run import WorkerInfo

__all__ = ["WORKER_TYPES", "configuration", "versions", "worker"]

# Tasks of a cluster that run the same steps; the chief is worker 0 by another name. No other name is accepted from
# TF_CONFIG, because it becomes part of a directory name.
WORKER_TYPES = ("chief", "master", "worker")
# TensorFlow's execution order, and with it the peak, depends on these.
_VARIABLES = (
    ALLOCATOR_VARIABLE,
    LIMIT_VARIABLE,
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_FORCE_GPU_ALLOW_GROWTH",
    "TF_GPU_ALLOCATOR",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_XLA_FLAGS",
    "CUDA_VISIBLE_DEVICES",
)


def versions() -> dict[str, str]:
    """Versions of Python, the operating system, this package and the loaded frameworks."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "kerasmemwatch": __version__}
    for name in ("keras", "tensorflow", "jax", "torch", "numpy"):
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:
            found[name] = str(version)
    return found


def worker(environ: Mapping[str, str]) -> WorkerInfo | None:
    """Read which worker of a cluster this process is from ``TF_CONFIG``, as TensorFlow's strategies do.

    Returns:
        ``None`` if it trains alone, serves parameters, evaluates alongside the training, or if ``TF_CONFIG`` does not
        describe a cluster.
    """
    try:
        described = json.loads(environ.get("TF_CONFIG", ""))
        cluster, task = described["cluster"], described["task"]
        tasks = {kind: _indices(cluster[kind]) for kind in WORKER_TYPES if kind in cluster}
        kind, index = task["type"], _whole(task["index"])
        count = sum(map(len, tasks.values()))
        if count < 2 or index not in tasks[kind]:
            return None
        spelled_out = json.dumps(cluster, sort_keys=True).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return WorkerInfo(hashlib.sha256(spelled_out).hexdigest()[:12], kind, index, count)


def _indices(tasks: Any) -> Collection[int]:
    """Indices of a cluster's tasks, which are a list of addresses, or addresses by index."""
    if isinstance(tasks, dict):
        return set(map(_whole, tasks))
    if isinstance(tasks, list):
        return range(len(tasks))
    raise TypeError(f"Expected a list or a dict of addresses. Received: {tasks!r}.")


def _whole(index: Any) -> int:
    if isinstance(index, bool) or not isinstance(index, (int, str)):
        raise TypeError(f"Expected a whole number. Received: {index!r}.")
    return int(index)


def configuration() -> dict[str, Any]:
    """Collect the environment variables that are set, and settings of the loaded frameworks."""
    found: dict[str, Any] = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    if is_ours(LIMIT_VARIABLE):  # the machine's memory rather than a limit that the user chose
        del found[LIMIT_VARIABLE]
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
