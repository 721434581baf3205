"""What the programs of the gallery are made of: each is a short function with the truth about its memory.

A program is called with ``fixed`` and returns its unit, a function that is called again and again with the callbacks
that its fits are to have. Lines that end in ``# leak`` are the place that a finding should name.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

__all__ = ["CAUSES", "PROGRAMS", "Program", "in_partial_count", "innocent", "is_held_out", "leak", "mlp", "rows"]

CAUSES = (
    "retained_tensors",
    "retained_arrays",
    "models_accumulate",
    "graphs_pinned",
    "retracing",
    "waits_for_collector",
    "kernel_cache",
    "compiled_programs",
    "resource_tables",
    "tape_cache",
    "onednn_cache",
    "variables_accumulate",
    "graph_growth",
    "iterators_accumulate",
    "python_objects",
    "native",
    "malloc_retention",
    "worker_processes",
    "fragmentation",
)
_SEED = "the gallery of 2026-11-27"
Unit = Callable[[list[Any]], object]


@dataclass(frozen=True)
class Program:
    """A program and what is true of it."""

    name: str
    make: Callable[[bool], Unit]
    causes: tuple[str, ...]  # the causes that are right; none for an innocent one
    # What a unit is: "step" of a session, "fit" with callbacks, "watch" with new ones each, or "run", called once.
    loop: str
    units: int  # how often the unit is called
    fix: str = ""  # what ends the growth, which `make(True)` does
    report: str = ""  # where users reported it
    holder: str = ""  # the name of what holds the memory, which may stand for the line
    collects: int = 0  # collect garbage every so many units

    @property
    def leaks(self) -> bool:
        return bool(self.causes)

    @property
    def place(self) -> tuple[str, tuple[int, ...]]:
        """Its file and the marked lines in it; no line if the cause is none of the program's."""
        lines, begin = inspect.getsourcelines(self.make)
        marked = [begin + i for i, line in enumerate(lines) if line.rstrip().endswith("# leak")]
        return Path(inspect.getfile(self.make)).name, tuple(marked)


PROGRAMS: dict[str, Program] = {}


def leak(*causes: str, loop: str = "step", units: int = 0, **truth: Any) -> Callable[[Callable[[bool], Unit]], Any]:
    """Add a program that leaks for the given cause; of several, each is right."""
    assert causes and set(causes) <= set(CAUSES)
    return lambda make: _add(Program(make.__name__, make, causes, loop, units or _UNITS[loop], **truth))


def innocent(loop: str = "step", units: int = 0, collects: int = 10, **truth: Any) -> Callable[..., Any]:
    """Add a program that doesn't leak, and a twin of it that never collects garbage by itself."""

    def add(make: Callable[[bool], Unit]) -> Any:
        _add(Program(f"{make.__name__}_never_collecting", make, (), loop, units or _UNITS[loop], **truth))
        return _add(Program(make.__name__, make, (), loop, units or _UNITS[loop], collects=collects, **truth))

    return add


_UNITS = {"step": 300, "fit": 40, "watch": 40, "run": 1}


def _add(program: Program) -> Program:
    before = PROGRAMS.get(program.name)
    # Under pytest a module may be imported by two names.
    assert before is None or before.place[0] == program.place[0], program.name
    PROGRAMS[program.name] = program
    return program


def is_held_out(name: str) -> bool:
    """Whether a program is in the half that is run only when the rules are made; drawn once, by its name."""
    return _drawn("half", name.removesuffix("_never_collecting")) < 0.5


def in_partial_count(name: str) -> bool:
    """Whether a program runs under TensorFlow's default allocator, as a third of them do."""
    return _drawn("counting", name) < 1 / 3


def _drawn(what: str, name: str) -> float:
    return int.from_bytes(hashlib.sha256(f"{_SEED}/{what}/{name}".encode()).digest()[:4], "big") / 2**32


def mlp(width: int = 64, inputs: int = 16, depth: int = 2, **options: Any) -> Any:
    """A small compiled model."""
    hidden = [keras.layers.Dense(width, "relu") for _ in range(depth)]
    model = keras.Sequential([keras.Input((inputs,)), *hidden, keras.layers.Dense(1)])
    model.compile(**{"optimizer": "adam", "loss": "mse", "jit_compile": False, **options})
    return model


def rows(count: int = 32, inputs: int = 16, outputs: int = 1, seed: int = 0) -> Sequence[Any]:
    """Random inputs and targets."""
    random = np.random.default_rng(seed)
    return random.random((count, inputs), np.float32), random.random((count, outputs), np.float32)
