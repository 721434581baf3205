"""GPUs that CUDA shows a process, according to ``CUDA_VISIBLE_DEVICES``."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["kind_of", "visible_devices"]

_LEADING_INDEX = re.compile(r"\+?(\d+)")


def visible_devices(value: str | None, uuids: Sequence[str]) -> list[int | str]:
    """Select devices as CUDA does from ``CUDA_VISIBLE_DEVICES``.

    An invalid entry hides itself and all after it; so does an entry of a different kind from the first (index, GPU or
    MIG id). A repeated entry hides everything. CUDA shows at most one MIG device.

    Args:
        value: The variable's value; ``None`` if it is not set.
        uuids: UUIDs of the machine's GPUs, in the order of their indices.

    Returns:
        Indices into ``uuids``, or the one MIG id, not yet looked up.
    """
    if value is None:
        return list(range(len(uuids)))
    tokens = [token.strip() for token in value.split(",")]
    chosen: list[int | str] = []
    for token in tokens:
        device = _device_of(token, uuids) if kind_of(token) == kind_of(tokens[0]) else None
        if device is None:
            break
        if device in chosen:
            return []
        chosen.append(device)
    return chosen[:1] if kind_of(tokens[0]) == "MIG-" else chosen


def kind_of(token: str) -> str:
    """How an entry names its device: ``"index"``, ``"GPU-"`` or ``"MIG-"``."""
    return token[:4] if token.startswith(("GPU-", "MIG-")) else "index"


def _device_of(token: str, uuids: Sequence[str]) -> int | str | None:
    if token.startswith("MIG-"):
        return token
    if token.startswith("GPU-"):
        # A prefix of a UUID is enough if only one GPU's UUID starts with it.
        matches = [index for index, uuid in enumerate(uuids) if uuid.startswith(token)]
        return matches[0] if len(matches) == 1 else None
    match = _LEADING_INDEX.match(token)
    return int(match[1]) if match and int(match[1]) < len(uuids) else None
