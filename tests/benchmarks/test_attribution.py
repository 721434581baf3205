"""The attribution benchmark runs, prints what docs/figures.md quotes, and its own counts can tell right from wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from timelines import step, timeline

from kerasmemwatch.records.owners import NAMED_OWNERS

ROOT = Path(__file__).parents[2]
# Requested bytes, birth, death, owner, category, phase, operation; the chunks are multiples of 256.
LINES = [
    (1000, -1, 4, "dense", "weights", "between", ""),
    (300, 0, 3, "dense", "activations", "forward", "MatMul"),
    (100, 1, 2, "unattributed", "unattributed", "forward", ""),
]


@pytest.fixture
def check_step(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from _timeline_checks import check_step

    return check_step


def right() -> Any:
    made = timeline(LINES, 4)
    # Chunks of 512 and 256 come, and go in the other order.
    return replace(made, in_use_before_bytes=2048, in_use_bytes=2048 + np.array([512, 768, 512, 0]))


def test_counts_of_a_step(check_step: Any) -> None:
    found = check_step(step(right()))
    assert (found.events, found.peak_bytes, found.wrong_totals) == (4, 1400, 0)
    assert found.covered == 1300 / 1400
    assert found.activations_in_layers == 1
    assert (found.weights_bytes, found.optimizer_bytes) == ((1000,) * 4, (0,) * 4)
    assert found.by_category["activations"] == 300
    assert sum(found.by_category.values()) == found.peak_bytes
    assert found.slack_bytes == 2048 - 1000
    assert found.unattributed == [("", "unattributed", "forward, unattributed", 100)]


def test_counts_tell_what_is_wrong(check_step: Any) -> None:
    assert check_step(step(replace(right(), reserved_bytes=np.array([0, 512, 512])))).wrong_totals == 2
    assert check_step(step(replace(right(), in_use_before_bytes=0))).wrong_totals == 1
    assert check_step(step(replace(right(), in_use_bytes=np.array([512, 768, 512, 0])))).slack_bytes < 0
    freed = [(1000, -1, 3, *LINES[0][3:]), *LINES[1:]]
    assert check_step(step(timeline(freed, 4))).weights_bytes == (1000, 0, 1000, 1000)
    loose = [LINES[0], (300, 0, 3, "loss", "activations", "forward", "MatMul")]
    found = check_step(step(timeline(loose, 4)))
    assert (found.activations_in_layers, found.activations_or_loss) == (0, 1)
    nobodys = [*LINES[:2], (100, 0, 3, "unattributed", "activations", "forward", "MatMul")]
    found = check_step(step(timeline(nobodys, 4)))
    assert found.activations_in_layers == found.activations_or_loss == 0.75
    assert check_step(step(timeline(loose[:1], 4))).activations_in_layers is None


def test_owners_that_the_product_names_are_covered(check_step: Any) -> None:
    paths = sorted(NAMED_OWNERS)
    lines = [(1000, -1, 4, path, "other", "between", "") for path in (*paths, "somebody else")]
    found = check_step(step(timeline(lines, 4, classes=("",) * len(lines))))
    assert found.covered == len(paths) / len(lines)
    assert [owner for _, owner, *_ in found.unattributed] == ["somebody else"]


def test_zoo_is_that_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from _zoo import MODELS, MODES, build

    assert len(MODELS) == 16
    assert list(MODES) == ["graph", "eager", "xla"]
    policy = keras.config.dtype_policy()
    assert build("mixed_precision_cnn", "graph").model.layers[0].compute_dtype == "float16"
    assert keras.config.dtype_policy() == policy
    zoo = build("raw_variable", "eager")
    zoo.fit(2)
    table = zoo.model.codebook.table
    assert zoo.weights_bytes == sum(variable.numpy().nbytes for variable in [*zoo.model.weights, table])
    assert zoo.optimizer_bytes == sum(variable.numpy().nbytes for variable in zoo.model.optimizer.variables)
    zoo = build("gan", "graph")
    zoo.fit(2)
    # Two of its own, and the one that Keras makes by default.
    optimizers = [zoo.model.d_optimizer, zoo.model.g_optimizer, zoo.model.optimizer]
    assert zoo.optimizer_bytes == sum(v.numpy().nbytes for optimizer in optimizers for v in optimizer.variables)


@pytest.fixture
def benchmark(forked_children: Callable[[str], Any], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the benchmark prints with such arguments."""

    def run(*arguments: str) -> str:
        forked_children("attribution").main(["--no-million", *arguments])
        return capsys.readouterr().out

    return run


def test_table_and_targets_are_printed(tmp_path: Path, benchmark: Callable[..., str]) -> None:
    found = tmp_path / "found.json"
    output = benchmark("--models", "mlp", "--modes", "graph", "--markdown", "--json", str(found))
    row = json.loads(found.read_text())["rows"]["mlp, graph"]
    assert "error" not in row, row
    assert [step["step"] for step in row["steps"]] == row["expected_steps"]
    assert row["mode"] == ["graph"]
    assert "| mlp | graph |" in output
    for target in ("covered at the peak", "activations in layers", "weights are exact", "running sum", "categories"):
        [line] = [line for line in output.splitlines() if line.startswith("target: ") and target in line]
        assert ": reached (" in line
    # Its times are nobody's business here.
    assert "target: a traced step (mlp, graph) at most 1.15" in output


def test_model_that_cannot_be_measured_is_a_row_that_says_why(benchmark: Callable[..., str]) -> None:
    output = benchmark("--models", "nowhere", "--modes", "graph")
    assert "nowhere, graph: exit code 1: KeyError: 'nowhere'" in output
    assert "target: rows with figures at least 1 of 1: NOT reached" in output
