"""Does the note of an out-of-memory error name the right layer and bytes, and does its first suggestion fit?

    python benchmarks/out_of_memory.py                          # 20 models, each as graph, eager and XLA; about an hour
    python benchmarks/out_of_memory.py --models mlp,cnn --modes graph

Each model and mode is measured in three processes on a CPU whose memory TensorFlow limits. The first needs no limit: it
tells what batches take, each with twice the rows of the last. In the second, a few batches fit, and then one does not:
TensorFlow raises a real error. The third trains with the batch that the note suggests first, under the same limit.
Where a process crashes instead, it is run again without a watch, which tells whether TensorFlow crashes by itself.

The right layer is checked without the package: by the name scopes in the error's operation, or by the class that Keras
names in an eager error; an error without either (an eager gradient) only has to name some layer. An XLA program has no
layer: the note has to name the step's program, and a size that is what the error rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from typing import Any

from _processes import in_process
from _targets import at_least
from _zoo import MODELS, MODES, build
from rich.console import Console
from rich.table import Table

_MIB = 2**20
_CHOSEN = (*MODELS, "mobilenet", "mobilenet_v3_small", "densenet121", "vgg16")
_SMALL_STEPS, _LEAST_LIMIT_MIB, _MOST_GROWTH = 4, 64, 1024
# The batch must need clearly more than the limit. Its inputs must fit, because TensorFlow's copy of them has no check.
_EXCESS, _INPUTS_SHARE = 1.3, 0.6
_SIZES = {"float": 4, "half": 2, "bfloat16": 2, "double": 8, "int32": 4, "int64": 8, "bool": 1, "int8": 1, "uint8": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(_CHOSEN))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        _measure(json.loads(options.measure))
        return
    rows = []
    for name in options.models.split(","):
        for mode in options.modes.split(","):
            rows.append((name, mode, _tried(name, mode)))
            print(f"{name} {mode}: {_short(rows[-1][2])}", file=sys.stderr, flush=True)
    _show(rows)


def _tried(name: str, mode: str) -> dict[str, Any]:
    """What the note of one model's error says, and whether its suggestion fits."""
    plan = _run(0, name=name, mode=mode, what="plan")
    if "error" in plan:
        return plan
    limit, batch = plan["limit_mib"], plan["batch"]
    found = _run(limit, name=name, mode=mode, what="die", batch=batch)
    if "said" in found:  # it crashed
        bare = _run(limit, name=name, mode=mode, what="bare", batch=batch)
        without = "crashes without a watch, too" if "said" in bare else "does not crash without a watch"
        return {**found, "error": f"{without}: {found['error']}"}
    if "error" in found or not found["died"]:
        return {**found, "error": found.get("error", "it did not run out of memory")}
    suggested = found["batch_size"]
    fits = _run(limit, name=name, mode=mode, what="fit", batch=suggested) if suggested else {"died": True}
    return {**found, "limit_mib": limit, "fits": not fits.get("died", True)}


def _run(limit_mib: int, **what: Any) -> dict[str, Any]:
    limits = {"TF_CPU_BFC_MEM_LIMIT_IN_MB": str(limit_mib)} if limit_mib else {}
    environment = {"TF_CPU_ALLOCATOR_USE_BFC": "1", "TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return in_process(__file__, json.dumps(what), **environment, **limits, CUDA_VISIBLE_DEVICES="")


# -- in processes of their own ---------------------------------------------------------------------------------


def _measure(asked: dict[str, Any]) -> None:
    zoo = build(asked["name"], asked["mode"])
    if asked["what"] == "plan":
        found = _plan(zoo)
    else:
        small = asked["batch"] if asked["what"] == "fit" else zoo.batch_size
        found = _die(zoo, small, asked["batch"], is_watched=asked["what"] != "bare")
    print(json.dumps(found), flush=True)
    os._exit(0)  # after an error in a compiled step, TensorFlow aborts the process as it exits


def _plan(zoo: Any) -> dict[str, Any]:
    """A limit that the model's usual batch stays below, and the smallest batch that clearly exceeds it."""
    import keras
    import tensorflow as tf

    def peak(rows: int) -> int:
        tf.config.experimental.reset_memory_stats("CPU:0")
        zoo.model.fit(_batches(zoo, [rows] * 2), shuffle=False, verbose=0)
        return int(tf.config.experimental.get_memory_info("CPU:0")["peak"])

    row_bytes = sum(array.nbytes for array in keras.tree.flatten((zoo.x, zoo.y)) if array is not None) / zoo.batch_size
    usual, rows = peak(zoo.batch_size), 2 * zoo.batch_size
    least = max(_LEAST_LIMIT_MIB * _MIB, 1.6 * peak(rows))
    while rows < _MOST_GROWTH * zoo.batch_size:
        rows *= 2
        limit = max(least, usual + rows * row_bytes / _INPUTS_SHARE)
        if peak(rows) > _EXCESS * limit:
            return {"limit_mib": math.ceil(limit / _MIB), "batch": rows}
    return {"error": f"a batch of {rows} does not exceed a limit that its inputs leave room in"}


def _die(zoo: Any, small: int, large: int, *, is_watched: bool) -> dict[str, Any]:
    """Train with small batches, then a large one; what the note says, and what it ought to say."""
    import tensorflow as tf

    import kerasmemwatch as kmw

    watches = [kmw.MemoryWatch(None)] if is_watched else []
    try:
        zoo.model.fit(_batches(zoo, [small] * _SMALL_STEPS + [large]), shuffle=False, verbose=0, callbacks=watches)
    except tf.errors.ResourceExhaustedError as error:
        return {"died": True, **(_said(str(error), error, watches[0]) if is_watched else {})}
    return {"died": False}


def _said(text: str, error: BaseException, watch: Any) -> dict[str, Any]:
    death = watch.recording.run.deaths[-1] if watch.recording.run.deaths else None
    if death is None:
        return {"error": f"no note: {watch.report.notes[-2:]}", "text": text[-400:]}
    first = death.suggestions[0].code if death.suggestions else ""
    return {
        "kind": death.request.kind,
        "op": death.request.op,
        "layer": death.layer,
        "class": death.class_name,
        "bytes": death.request.num_bytes,
        "bytes_right": _bytes_right(text, death.request.num_bytes),
        "layer_right": _layer_right(text, death),
        "batch": death.batch,
        "batch_size": int(first.removeprefix("batch_size=")) if first.startswith("batch_size=") else 0,
        "note": error.__notes__[0],  # type: ignore[attr-defined]
        "fragmented": death.is_fragmented,
    }


def _bytes_right(text: str, found: int | None) -> bool:
    """Whether the bytes are those of the error's shape and type, or are rounded to what it says."""
    tensor = re.search(r"shape\[([\d,]*)\] and type (\w+)", text)
    if tensor:
        size = _SIZES[tensor[2]]
        for dimension in filter(None, tensor[1].split(",")):
            size *= int(dimension)
        return found == size
    rounded = re.search(r"allocate ([\d.]+)([KMG]?)i?B", text)
    if rounded is None or found is None:
        return False
    scale = 1024 ** " KMG".index(rounded[2] or " ")
    # TensorFlow cuts to the next smaller unit before it rounds.
    return abs(found / scale - float(rounded[1])) <= 0.005 + 1 / 1024


def _layer_right(text: str, death: Any) -> bool:
    if death.request.kind == "program":
        return "one_step_on_data" in death.request.op or "train_step" in death.request.op
    node = re.search(r"\{\{node ([^}]+)\}\}", text)
    called = re.search(r"Exception encountered when calling (\w+)\.", text)
    name = death.layer.rpartition("/")[2]
    if node:
        scopes = {found for scope in node[1].split("/") for found in (scope, re.sub(r"_\d+$", "", scope))}
        return bool(name) and (name in scopes or not death.class_name)
    return death.class_name == called[1] if called else bool(death.layer)


def _batches(zoo: Any, sizes: list[int]) -> Any:
    import keras
    import numpy as np

    def resized(data: Any, rows: int) -> Any:
        return keras.tree.map_structure(lambda array: np.resize(array, (rows, *array.shape[1:])), data)

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return len(sizes)

        def __getitem__(self, index: int) -> Any:
            x = resized(zoo.x, sizes[index])
            return (x,) if zoo.y is None else (x, resized(zoo.y, sizes[index]))

    return Batches()


# -- what comes of it ------------------------------------------------------------------------------------------


def _short(found: dict[str, Any]) -> str:
    keys = ("error", "op", "layer", "bytes", "bytes_right", "layer_right", "batch", "batch_size", "fits")
    return ", ".join(f"{key}={found[key]}" for key in keys if key in found)


def _show(rows: list[tuple[str, str, dict[str, Any]]]) -> None:
    table = Table("model", "mode", "limit", "asked for", "layer", "right", "exact", "batch", "suggested", "fits")
    for name, mode, found in rows:
        if "error" in found:
            table.add_row(name, mode, found["error"][:60])
            continue
        layer = found["layer"] or found["op"]
        marks = ("yes" if found[key] else "NO" for key in ("layer_right", "bytes_right"))
        table.add_row(
            *(name, mode, f"{found['limit_mib']} MiB", f"{found['bytes'] or 0:,}", layer[:40], *marks),
            *(str(found["batch"]), str(found["batch_size"]), "yes" if found["fits"] else "NO"),
        )
    console = Console(width=150)
    console.print(table)
    done = [found for *_, found in rows if "error" not in found]
    console.print(f"{len(done)} of {len(rows)} ran out of memory as they should.")
    wanted = (("layer_right", "right layer", 95), ("bytes_right", "exact bytes", 100), ("fits", "suggestion fits", 90))
    for key, words, share in wanted:
        count = sum(bool(found[key]) for found in done)
        console.print(at_least(f"{words} ({count} of {len(done)})", 100 * count / max(1, len(done)), share, "%"))


if __name__ == "__main__":
    main()
