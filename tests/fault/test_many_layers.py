"""A model of 10,000 layers."""

from __future__ import annotations

import json

from kerasmemwatch.recording import load

MIB = 1024**2


def test_a_model_of_ten_thousand_layers(execute, tmp_path):
    done = execute("many_layers.py", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["steps"] == [1, 2]
    assert found["weights"] == 10_000 * 2 * 4
    assert found["layers"] == found["paths"] and 10_000 <= found["layers"] <= 10_003
    lines = found["brief"].splitlines()
    assert len(lines) < 60 and max(map(len, lines)) <= 100
    assert [line for line in lines if "more with" in line]
    assert found["all"] > 10_000
    assert sum(path.stat().st_size for path in (tmp_path / "run").iterdir()) < 4 * MIB
    assert [layer.weights_bytes for layer in load(tmp_path).layers if layer.class_name == "Dense"] == [8] * 10_000
