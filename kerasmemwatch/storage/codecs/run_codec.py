"""Codec of a run's description: compressed JSON, every value checked as it is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from kerasmemwatch.errors import RecordingFormatError
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.storage.codecs.json_fields import checked, from_json
from kerasmemwatch.storage.codecs.row_codec import decode_json, encode_json

__all__ = ["decode_run", "encode_run"]

# Values within free-form fields that reports use in calculations.
_SETTINGS: dict[str, Any] = {
    "sample_every": int,
    "reset_peak": bool,
    "dataset_caches_bytes": tuple[int | None, ...],
    "dataset_caches_read_steps": tuple[int, ...],
    "dataset_caches_held_bytes": tuple[int, ...],
    "dataset_shuffle_bytes": int | None,
    "dataset_shuffle_steps": float | None,
    "dataset_shuffle_since_step": int | None,
    "predict_results_bytes": int,
}
_HOST: dict[str, Any] = {"limit_bytes": int | None, "limit_source": str | None, "physical_bytes": int | None}
_DRIVER: dict[str, Any] = {"name": str | None}
# The year 10000, where Python's calendar ends.
_TIME_BOUND_S = 253_402_300_800


def encode_run(run: RunInfo, layers: Sequence[LayerMemory]) -> bytes:
    """Compress a run's description; layers are left out if there are too many to be read back."""
    kept = [{key: value for key, value in asdict(layer).items() if value not in (None, "")} for layer in layers]
    try:
        return encode_json({"run": asdict(run), "layers": kept})
    except RecordingFormatError:
        note = f"The variables of {len(layers):,} layers are more than a recording stores."
        return encode_json({"run": asdict(replace(run, notes=(*run.notes, note))), "layers": []})


def decode_run(payload: bytes) -> tuple[RunInfo, tuple[LayerMemory, ...]]:
    """Read what ``encode_run`` wrote.

    Raises:
        RecordingFormatError: If the bytes are damaged, or a value has the wrong type.
        RecordingVersionError: If a newer version wrote them.
    """
    value = decode_json(payload)
    try:
        run = _checked(from_json(RunInfo, value.get("run")))
        return run, checked(tuple[LayerMemory, ...], value.get("layers"), "layers")
    except RecordingFormatError as error:
        raise RecordingFormatError(f"Expected a description of a run. In this one: {error}") from error


def _checked(run: RunInfo) -> RunInfo:
    if not (math.isnan(run.created) or 0 <= run.created < _TIME_BOUND_S):
        raise RecordingFormatError(f"Expected a UNIX time in seconds. Received: created={run.created:.6g}.")
    _check(run.configuration, _SETTINGS)
    if run.configuration.get("sample_every", 1) < 1:
        raise RecordingFormatError("Expected sample_every to be at least 1.")
    _check(run.host, _HOST)
    for driver in run.drivers:
        _check(driver, _DRIVER)
    return run


def _check(values: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for name, hint in known.items():
        if name in values:
            checked(hint, values[name], name)
