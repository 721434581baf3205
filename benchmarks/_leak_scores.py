"""What is true of the gallery's programs against what was said of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Score", "is_wrong", "scored", "summed"]

_WAITS = "waits_for_collector"
_GROWS = ("growing", "waits for the collector")


@dataclass(frozen=True)
class Score:
    """What came of one program; ``None`` where there is nothing to be right about."""

    name: str
    leaks: bool
    held_out: bool
    missed: bool | None = None  # of a leak
    false_alarm: bool | None = None  # of an innocent program
    right_cause: bool | None = None
    right_place: bool | None = None
    told: str = ""  # the first finding, or the growth
    error: str = ""


def scored(truth: dict[str, Any], found: dict[str, Any], *, fixed: bool = False) -> Score:
    """Compare what a program was told with the truth about it.

    Args:
        truth: The program's, as ``run_program.py --list`` prints it.
        found: What ``run_program.py`` printed of its run.
        fixed: Whether the program ran with its fix.
    """
    name, leaks, held_out = truth["name"], bool(truth["causes"]) and not fixed, truth["held_out"]
    if "error" in found:
        return Score(name, leaks, held_out, error=found["error"])
    grown = [one for one in found["growth"] if one["verdict"] in _GROWS]
    causes = list(found["leaks"])
    told = f"{causes[0]['cause']}: {causes[0]['where']}" if causes else grown[0]["explanation"] if grown else ""
    if leaks:
        right = bool(causes) and causes[0]["cause"] in truth["causes"]
        place = _is_right_place(truth, causes[0]["where"]) if right else False
        has_place = bool(truth["place"][1])
        return Score(name, leaks, held_out, not (grown or causes), None, right, place if has_place else None, told)
    may_wait = not truth["collects"]
    alarms = [one for one in grown if one["verdict"] == "growing" or not may_wait]
    alarms += [one for one in causes if one["cause"] != _WAITS or not may_wait]
    return Score(name, leaks, held_out, false_alarm=bool(alarms), told=told)


def _is_right_place(truth: dict[str, Any], where: str) -> bool:
    """Whether a place is one of the marked lines, or names what holds the memory."""
    file, lines = truth["place"]
    holder = truth["holder"]
    by_line = any(re.search(rf"\b{re.escape(file)}:{line}\b", where) for line in lines)
    return by_line or (bool(holder) and re.search(rf"\b{holder}\b", where) is not None)


def is_wrong(score: Score) -> bool:
    """Whether a leak was missed, an innocent program is a false alarm, or a program did not run."""
    return bool(score.error or score.missed or score.false_alarm)


def summed(scores: Sequence[Score]) -> str:
    """The figures of a half in a line."""
    ran = [score for score in scores if not score.error]
    leaks, innocents = [s for s in ran if s.leaks], [s for s in ran if not s.leaks]
    places = [score for score in leaks if score.right_place is not None]
    parts = [
        f"{len(leaks)} leaks: {sum(bool(s.missed) for s in leaks)} missed, "
        f"right cause in {sum(bool(s.right_cause) for s in leaks)}, "
        f"right place in {sum(bool(s.right_place) for s in places)} of {len(places)}",
        f"{len(innocents)} innocents: {sum(bool(s.false_alarm) for s in innocents)} false alarms",
    ]
    errors = len(scores) - len(ran)
    return "; ".join([*parts, *([f"{errors} did not run"] if errors else [])])
