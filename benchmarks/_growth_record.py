"""Records programs, each in a process forked from one that has imported TensorFlow and used nothing of it."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import time
import traceback
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from _growth_programs import Program

from kerasmemwatch.exact_cpu import ALLOCATOR_VARIABLE
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.records.samples import Samples
from kerasmemwatch.storage.codecs.run_codec import decode_run, encode_run
from kerasmemwatch.switches import EXACT_CPU_VARIABLE

__all__ = ["LATER", "LONG", "SHORT_EPOCHS", "Series", "read", "record"]

_LONGEST_S = 1_200
# Steps of a run by its seed, least and most. Runs of seeds 0 and 5, and long ones, have many short epochs; the others
# have as many as the program has.
_STEPS = {0: (400, 600), 1: (150, 600), 2: (150, 600), 3: (1_250, 1_250), 4: (150, 600), 5: (400, 600)}
_EAGER_STEPS = {3: 500}
_MOST_EAGER_STEPS = 300
_EPOCH_STEPS = {0: 50, 3: 50, 5: 50}
LONG = 3
SHORT_EPOCHS = tuple(_EPOCH_STEPS)
# Recorded after the rule was fixed.
LATER = (4, 5)


@dataclass(frozen=True, eq=False)
class Series:
    """What a program's watch recorded.

    Attributes:
        program: The program.
        seed: Its seed.
        run: The recording's description.
        samples: Its rows.
        ended: What was found once it had ended: bytes of RSS that a collection, ``malloc_trim`` and an empty kernel
            cache gave back, full collections meanwhile, CPU seconds.
    """

    program: Program
    seed: int
    run: RunInfo
    samples: Samples
    ended: dict[str, float]

    @property
    def name(self) -> str:
        """Of the program and the seed."""
        return _name(self.program, self.seed)

    def until(self, rows: int) -> Samples:
        """The rows that a look sees after so many."""
        return Samples({name: values[:rows] for name, values in self.samples.items()})

    def plus(self, column: str, added: Any) -> Series:
        """The same with bytes added to a column."""
        grown = self.samples[column] + (added if self.samples[column].ndim == 1 else added[:, np.newaxis])
        return replace(self, samples=Samples({**self.samples, column: grown}))


def _name(program: Program, seed: int) -> str:
    return f"{program.name}-{seed}"


def read(folder: Path, program: Program, seed: int) -> Series | None:
    """What was recorded earlier; ``None`` if nothing was."""
    path = folder / f"{_name(program, seed)}.npz"
    if not path.exists():
        return None
    with np.load(path) as stored:
        columns = {name: stored[name] for name in stored.files if not name.startswith("_")}
        run, _ = decode_run(stored["_run"].tobytes())
        return Series(program, seed, run, Samples(columns), json.loads(str(stored["_ended"])))


def record(folder: Path, programs: Iterable[Program], seeds: Iterable[int]) -> list[str]:
    """Record what the folder does not have yet, one process after the other, a seed of all programs first.

    Returns:
        How each run ended that left no recording.
    """
    import keras  # noqa: F401 -- imported once, for all processes
    import tensorflow  # noqa: F401

    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for seed in seeds:
        for program in programs:
            name = _name(program, seed)
            path = folder / f"{name}.npz"
            if path.exists():
                continue
            begun = time.monotonic()
            status = _forked(program, seed, path)
            print(f"{name}: {status or f'{time.monotonic() - begun:.1f} s'}", file=sys.stderr, flush=True)
            if status:
                failed.append(f"{name}: {status}")
    return failed


def _forked(program: Program, seed: int, path: Path) -> str:
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        return f"ended with {code}" if code else ""
    try:
        signal.alarm(_LONGEST_S)  # which ends what hangs
        _in_child(program, seed, path)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # its threads and TensorFlow's may still run


def _in_child(program: Program, seed: int, path: Path) -> None:
    os.environ.pop(ALLOCATOR_VARIABLE, None)
    if program.is_exact:
        os.environ[ALLOCATOR_VARIABLE] = "1"
    else:
        os.environ[EXACT_CPU_VARIABLE] = "0"
    # What Keras and TensorFlow say of a program is nobody's business here.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    import _growth_fits
    import _growth_loops
    import keras
    from _growth_fresh import FRESH_FAMILIES
    from _growth_models import FAMILIES

    rng = np.random.default_rng([seed, zlib.crc32(program.name.encode())])
    keras.utils.set_random_seed(int(rng.integers(2**31)))
    steps = int(rng.integers(*_STEPS[seed], endpoint=True))
    if program.is_eager:
        steps = min(steps, _EAGER_STEPS.get(seed, _MOST_EAGER_STEPS))
    run = _growth_fits.Run({**FAMILIES, **FRESH_FAMILIES}[program.family], rng, steps, _EPOCH_STEPS.get(seed, 0))
    runs = getattr(_growth_fits, program.runs, None) or getattr(_growth_loops, program.runs)
    collections = _full_collections()
    watch = runs(run, **program.options)
    collections = _full_collections() - collections
    recording = watch.recording
    ended = {**_given_back(), "full_collections": collections, "cpu_s": time.process_time()}
    columns: dict[str, Any] = dict(recording.samples)
    columns["_run"] = np.frombuffer(encode_run(recording.run, ()), np.uint8)
    columns["_ended"] = np.array(json.dumps(ended))
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **columns)
    partial.rename(path)


def _full_collections() -> int:
    return gc.get_stats()[2]["collections"]


def _given_back() -> dict[str, float]:
    """Bytes of RSS that each of these gives back, one after the other."""
    from tensorflow.python.eager import context

    found = {}
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    for name, release in (
        ("trimmed_bytes", lambda: None),
        ("collected_bytes", gc.collect),
        ("kernels_bytes", lambda: context.context().clear_kernel_cache()),
    ):
        before = _rss()
        release()
        if trim is not None:
            trim(0)
        found[name] = float(before - _rss())
    return found


def _rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
