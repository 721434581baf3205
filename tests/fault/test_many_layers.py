"""A model of 2,000 layers."""

from __future__ import annotations

import json

import pytest

from kerasmemwatch.recording import load

NUM_LAYERS = 2_000
KIB = 1024


@pytest.mark.long
def test_a_model_of_thousands_of_layers(execute_forked, tmp_path):
    done = execute_forked("many_layers.py", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["steps"] == [1, 2]
    assert found["weights"] == NUM_LAYERS * 2 * 4
    assert found["layers"] == found["paths"] and NUM_LAYERS <= found["layers"] <= NUM_LAYERS + 3
    lines = found["brief"].splitlines()
    assert len(lines) < 60 and max(map(len, lines)) <= 100
    assert [line for line in lines if "more with" in line]
    assert found["all"] > NUM_LAYERS
    assert sum(path.stat().st_size for path in (tmp_path / "run").iterdir()) < 800 * KIB
    assert [layer.weights_bytes for layer in load(tmp_path).layers if layer.class_name == "Dense"] == [8] * NUM_LAYERS
