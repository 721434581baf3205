"""What models of earlier fits still hold has an owner of its own, and is no weight of the model that is watched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from forks import run_forked

SCRIPT = Path(__file__).parent / "scripts" / "three_models.py"


@pytest.mark.long
@pytest.mark.parametrize(("mode", "clears"), [("graph", "clear"), ("graph", "keep"), ("xla", "keep")])
def test_three_models_in_one_process(mode: str, clears: str) -> None:
    status, out, errors = run_forked(SCRIPT, mode, clears)
    assert status == 0, errors
    found: list[dict[str, Any]] = json.loads(out.splitlines()[-1])
    assert found[0]["earlier"] is None
    assert [each["weights"] for each in found] == [each["own_weights"] for each in found]
    assert min(each["coverage"] for each in found) >= 0.99
    # Weights and slots of the first model, and of the second; all of it is in one category.
    total, other = found[2]["earlier"]
    assert total == other >= found[0]["held"] + found[1]["held"]
