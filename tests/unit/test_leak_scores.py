"""``benchmarks/leaks.py`` judges what a program was told by the truth about it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

LEAK = {
    "name": "tapes_kept",
    "causes": ["retained_tensors", "native"],
    "place": ["retained.py", [77]],
    "holder": "tapes",
    "held_out": False,
    "collects": 0,
}
INNOCENT = {**LEAK, "name": "predict", "causes": [], "collects": 10}
STEADY = {"verdict": "steady", "explanation": ""}
GROWS = {"verdict": "growing", "explanation": "CPU:0 grows"}
WAITS = {"verdict": "waits for the collector", "explanation": "garbage waits"}


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("_leak_scores")


def told(*growth: dict[str, str], cause: str = "", where: str = "") -> dict[str, Any]:
    return {"growth": list(growth), "leaks": [{"cause": cause, "where": where}] if cause else []}


@pytest.mark.parametrize(
    ("found", "score"),
    [
        (told(STEADY), (True, False, False)),
        (told(GROWS), (False, False, False)),
        (told(GROWS, cause="retracing", where="retained.py:77"), (False, False, False)),
        (told(GROWS, cause="retained_tensors", where="retained.py:76, x"), (False, True, False)),
        (told(GROWS, cause="retained_tensors", where="/a/retained.py:77, tapes.append(tape)"), (False, True, True)),
        (told(GROWS, cause="retained_tensors", where="retained.py:778"), (False, True, False)),
        (told(cause="native", where="global tapes"), (False, True, True)),
    ],
)
def test_leaks(scores: Any, found: dict[str, Any], score: tuple[bool, bool, bool]) -> None:
    one = scores.scored(LEAK, found)
    assert (one.missed, one.right_cause, one.right_place) == score and one.false_alarm is None
    assert scores.is_wrong(one) == score[0]


def test_a_leak_without_a_place_has_none_to_be_right_about(scores: Any) -> None:
    truth = {**LEAK, "place": ["models.py", []], "holder": ""}
    assert scores.scored(truth, told(GROWS, cause="native", where="")).right_place is None


@pytest.mark.parametrize(
    ("found", "collects", "is_false"),
    [
        (told(STEADY), 10, False),
        (told(GROWS), 10, True),
        (told(GROWS), 0, True),
        (told(WAITS), 10, True),
        (told(WAITS), 0, False),
        (told(WAITS, cause="waits_for_collector"), 0, False),
        (told(STEADY, cause="retracing"), 0, True),
    ],
)
def test_innocents(scores: Any, found: dict[str, Any], collects: int, is_false: bool) -> None:
    one = scores.scored({**INNOCENT, "collects": collects}, found)
    assert one.false_alarm == is_false == scores.is_wrong(one) and one.missed is None


def test_a_leak_with_its_fix_is_innocent(scores: Any) -> None:
    assert scores.scored(LEAK, told(STEADY), fixed=True).false_alarm is False


def test_halves_are_summed(scores: Any) -> None:
    found = [
        scores.scored(LEAK, told(GROWS, cause="native", where="tapes")),
        scores.scored(LEAK, told(STEADY)),
        scores.scored(INNOCENT, told(GROWS)),
        scores.scored(INNOCENT, {"error": "exit status 1"}),
    ]
    assert scores.summed(found) == (
        "2 leaks: 1 missed, right cause in 1, right place in 1 of 2; 1 innocents: 1 false alarms; 1 did not run"
    )
    assert scores.is_wrong(found[3])
