"""A hundred clean programs: none of them leaks, and hardly two train in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FIXED_PART", "PROGRAMS", "Program"]


@dataclass(frozen=True)
class Program:
    """A way to train.

    Attributes:
        name: Its own.
        family: Name of its model.
        runs: Name of the function that runs it.
        options: What that function is given.
        is_exact: Whether every allocation is counted; otherwise TensorFlow's default on a CPU, which counts some.
        real_growth: What of TensorFlow's own grows with it, and is no leak of the program; empty for none.
    """

    name: str
    family: str
    runs: str
    options: Mapping[str, Any] = field(default_factory=dict)
    is_exact: bool = True
    real_growth: str = ""

    @property
    def is_eager(self) -> bool:
        """Whether it runs without a graph, which is slow."""
        return self.options.get("how") == "eager" or self.options.get("compile", {}).get("run_eagerly", False)


_CHECKPOINTS = "each save leaves about 70 KiB in TensorFlow's kernel cache"
_ALL: list[tuple[str, str, dict[str, Any]]] = [
    # -- fit: input pipelines
    ("dense", "fit", {}),
    ("dense", "fit", {"data": "prefetch"}),
    ("dense", "fit", {"data": "full shuffle", "validation": "arrays"}),
    ("dense", "fit", {"data": "cache", "epochs": 3}),
    ("dense", "fit", {"data": "from generator", "epochs": 3}),
    ("dense", "fit", {"data": "repeat", "epochs": 5}),
    ("dense", "fit", {"data": "workers"}),
    ("dense", "fit", {"data": "generator", "epochs": 3}),
    ("dense", "fit", {"data": "one batch", "epochs": 2}),
    ("dense", "fit", {"data": "unbatch"}),
    ("wide", "fit", {"data": "shuffle"}),
    ("wide", "fit", {"data": "deep prefetch", "epochs": 6}),
    ("wide", "fit", {"data": "cache shuffle", "validation": "prefetch"}),
    ("cnn", "fit", {"data": "parallel map"}),
    ("cnn", "fit", {"data": "interleave", "epochs": 3}),
    ("cnn", "fit", {"data": "pydataset", "epochs": 3}),
    ("cnn", "fit", {"data": "cache", "validation": "cache"}),
    ("residual", "fit", {"data": "numpy function", "epochs": 3}),
    ("residual", "fit", {"data": "shuffle", "epochs": 2}),
    ("autoencoder", "fit", {"data": "prefetch", "epochs": 5}),
    ("autoencoder", "fit", {"data": "workers", "epochs": 3}),
    ("lstm", "fit", {"data": "lengths", "epochs": 2}),
    ("lstm", "fit", {"data": "buckets", "epochs": 3}),
    ("gru", "fit", {"data": "buckets", "epochs": 2}),
    ("gru", "fit", {"data": "prefetch", "epochs": 2}),
    ("attention", "fit", {"data": "lengths", "epochs": 2}),
    ("attention", "fit", {"data": "full shuffle", "epochs": 2}),
    ("text", "fit", {"data": "cache"}),
    ("text", "fit", {"data": "buckets", "epochs": 6}),
    ("variational", "fit", {"data": "prefetch", "epochs": 3}),
    ("wide", "fit", {"epochs": 1}),
    ("cnn", "fit", {"data": "shuffle", "epochs": 1}),
    ("text", "fit", {"data": "repeat", "epochs": 1}),
    # -- fit: how it compiles and trains
    ("dense", "fit", {"compile": {"jit_compile": True}}),
    ("cnn", "fit", {"compile": {"jit_compile": True}, "data": "prefetch"}),
    ("attention", "fit", {"compile": {"jit_compile": True}, "epochs": 2}),
    ("dense", "fit", {"compile": {"run_eagerly": True}, "epochs": 3}),
    ("cnn", "fit", {"compile": {"run_eagerly": True}, "epochs": 2, "data": "prefetch"}),
    ("variational", "fit", {"compile": {"run_eagerly": True}, "epochs": 2}),
    ("dense", "fit", {"compile": {"steps_per_execution": 4}, "data": "prefetch"}),
    ("wide", "fit", {"compile": {"steps_per_execution": 7}, "validation": "split"}),
    ("dense", "fit", {"policy": "mixed_float16"}),
    ("cnn", "fit", {"policy": "mixed_bfloat16", "data": "prefetch", "epochs": 3}),
    ("text", "fit", {"policy": "mixed_bfloat16"}),
    ("dense", "fit", {"compile": {"metrics": ["accuracy", "sparse_top_k_categorical_accuracy"]}, "weighted": True}),
    ("residual", "fit", {"compile": {"optimizer": "lion"}, "weighted": True, "epochs": 2}),
    ("wide", "fit", {"compile": {"optimizer": "adafactor"}, "data": "prefetch"}),
    ("text", "fit", {"compile": {"optimizer": "adagrad"}, "data": "shuffle"}),
    ("gru", "fit", {"compile": {"optimizer": "nadam"}, "epochs": 2}),
    ("autoencoder", "fit", {"compile": {"optimizer": "ftrl"}, "data": "cache shuffle", "epochs": 3}),
    # -- fit: callbacks and validation
    ("dense", "fit", {"callbacks": ["early stopping", "reduce"], "validation": "split", "epochs": 8}),
    ("cnn", "fit", {"callbacks": ["early stopping"], "validation": "arrays", "epochs": 5}),
    ("wide", "fit", {"callbacks": ["checkpoint"], "epochs": 6}),
    ("text", "fit", {"callbacks": ["weights"], "data": "prefetch", "epochs": 5}),
    ("lstm", "fit", {"callbacks": ["checkpoint", "early stopping"], "validation": "split", "epochs": 4}),
    ("residual", "fit", {"callbacks": ["backup"], "epochs": 4}),
    ("dense", "fit", {"callbacks": ["tensorboard"], "epochs": 3}),
    ("cnn", "fit", {"callbacks": ["histograms"], "data": "prefetch", "epochs": 4}),
    ("text", "fit", {"callbacks": ["csv", "nan", "schedule"], "epochs": 5}),
    ("wide", "fit", {"callbacks": ["schedule"], "data": "workers", "epochs": 4}),
    ("dense", "fit", {"compile": {"optimizer": "ema"}, "epochs": 4}),
    ("cnn", "fit", {"compile": {"optimizer": "ema"}, "callbacks": ["swap"], "epochs": 4, "validation": "arrays"}),
    ("dense", "fit", {"compile": {"optimizer": "accumulate"}, "epochs": 4}),
    ("gru", "fit", {"compile": {"optimizer": "accumulate"}, "data": "shuffle", "epochs": 2}),
    ("autoencoder", "fit", {"validation": "prefetch", "validation_freq": 2, "epochs": 6}),
    ("variational", "fit", {"validation": "arrays", "callbacks": ["reduce"], "epochs": 5}),
    ("attention", "fit", {"validation": "buckets", "data": "buckets", "epochs": 3}),
    # -- several calls
    ("dense", "fit", {"fits": 5, "epochs": 2}),
    ("cnn", "fit", {"fits": 3, "epochs": 2, "data": "prefetch"}),
    ("text", "fit", {"fits": 8, "epochs": 1, "data": "shuffle"}),
    ("wide", "fit", {"fits": 4, "epochs": 2, "data": "cache"}),
    ("lstm", "fit", {"fits": 3, "epochs": 1, "data": "buckets"}),
    ("dense", "rounds", {}),
    ("cnn", "rounds", {"data": "prefetch", "batches": 10}),
    ("gru", "rounds", {"batches": 8, "collect": False}),
    ("dense", "rounds", {"batches": 2, "collect": False}),
    ("dense", "turns", {}),
    ("residual", "turns", {"fits": 4, "data": "shuffle"}),
    ("cnn", "fine_tuning", {}),
    ("wide", "fine_tuning", {}),
    ("dense", "larger_batches", {"sizes": [16, 64, 256]}),
    ("lstm", "larger_batches", {"sizes": [10, 20, 40], "length": 16}),
    ("cnn", "predictions", {"data": "prefetch"}),
    ("dense", "predictions", {"calls": 20}),
    ("text", "predictions", {"calls": 8, "evaluate": True, "data": "cache"}),
    # -- loops of one's own
    ("dense", "loop", {}),
    ("cnn", "loop", {"data": "shuffle", "validate": True}),
    ("attention", "loop", {"data": "prefetch", "epochs": 3}),
    ("dense", "loop", {"how": "xla", "data": "repeat", "epochs": 0}),
    ("dense", "loop", {"how": "eager", "epochs": 2, "tape": "kmw"}),
    ("text", "loop", {"tape": "kmw", "validate": True, "data": "cache"}),
    ("wide", "loop", {"epochs": 0, "data": "deep prefetch"}),
    ("dense", "loop", {"alone": True, "tape": "kmw"}),
    ("residual", "loop", {"accumulate": 3, "data": "from generator", "epochs": 2}),
    ("variational", "loop", {"strategy": True}),
    ("dense", "adversarial", {}),
    ("lstm", "on_batch", {"lengths": 3, "test_every": 5}),
    ("wide", "on_batch", {"epochs": 0}),
    ("dense", "replay", {"room": 100, "tensors": True}),
    ("text", "requests", {"sizes": 4, "direct": False}),
]


def _named(number: int, row: tuple[str, str, dict[str, Any]]) -> Program:
    family, runs, options = row
    saves = {"checkpoint", "weights", "backup"} & set(options.get("callbacks", ()))
    name = f"{number:02d}-{family}-{runs.replace('_', '-')}"
    return Program(name, family, runs, options, number % 3 != 2, _CHECKPOINTS if saves else "")


PROGRAMS = tuple(_named(number, row) for number, row in enumerate(_ALL))
# What runs in CI: a few cheap ones that differ most.
FIXED_PART = ("01-dense-fit", "50-dense-fit", "72-dense-rounds", "90-text-loop")
