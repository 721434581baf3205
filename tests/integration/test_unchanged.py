"""A watch changes no bit of what is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasmemwatch.watch.memory_budget import MemoryBudget
from kerasmemwatch.watch.memory_watch import MemoryWatch

MODES: dict[str, dict[str, bool]] = {"graph": {}, "eager": {"run_eagerly": True}, "xla": {"jit_compile": True}}


def trained(build: Any, name: str, mode: dict[str, bool], callbacks: list[Any], *, seed: int = 0) -> list[Any]:
    """Weights, then optimizer variables, after 50 steps with shuffling and validation."""
    case = build(name, seed=seed, **mode)
    x, y = np.tile(case.x, (4, *[1] * (case.x.ndim - 1)))[:200], np.tile(case.y, (4, 1))[:200]
    case.model.fit(
        x, y, batch_size=8, epochs=2, verbose=0, validation_data=(case.x[:8], case.y[:8]), callbacks=callbacks
    )
    assert int(case.model.optimizer.iterations) == 50
    return [variable.numpy() for variable in [*case.model.variables, *case.model.optimizer.variables]]


def identical(one: list[Any], other: list[Any]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("name", "mode"), [("mlp", "graph"), ("cnn", "graph"), ("cnn", "eager"), ("mlp", "xla")])
def test_weights_are_bit_identical(build: Any, tmp_path: Path, name: str, mode: str) -> None:
    plain = trained(build, name, MODES[mode], [])
    watch = MemoryWatch(tmp_path, add_to_logs=True, strict=True)
    watched = trained(build, name, MODES[mode], [watch, MemoryBudget(device="1 TiB", host="1 TiB")])
    assert identical(plain, watched)
    assert watch.recording.samples["train_step"].max() == 50


def test_the_comparison_can_fail(build: Any) -> None:
    assert not identical(trained(build, "mlp", {}, []), trained(build, "mlp", {}, [], seed=1))


def test_results_of_evaluate_and_predict_are_bit_identical(build: Any, tmp_path: Path) -> None:
    case = build("cnn")
    case.fit()
    watch = MemoryWatch(tmp_path, strict=True)
    assert case.model.evaluate(case.x, case.y, verbose=0, callbacks=[watch]) == case.model.evaluate(
        case.x, case.y, verbose=0
    )
    np.testing.assert_array_equal(
        case.model.predict(case.x, verbose=0, callbacks=[watch]), case.model.predict(case.x, verbose=0), strict=True
    )
    assert set(watch.recording.samples["stage"]) == {"test", "predict"}
