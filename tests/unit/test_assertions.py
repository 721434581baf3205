"""Whether memory grows, judged from readings that are made up."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kerasmemwatch.errors import InvalidArgumentError, InvalidTypeError, MemoryGrowthError
from kerasmemwatch.testing import assertions, suspects
from kerasmemwatch.testing.meter import Meter
from kerasmemwatch.testing.suspects import Suspect, grown
from kerasmemwatch.units import KIB, MIB

ROOT = Path(__file__).parents[2]


class Memory:
    """Grows as it is told; ``objects`` counts what each call leaves."""

    def __init__(self, grow: Callable[[int], int], objects: str = "", least: int = 0) -> None:
        self.calls, self.bytes, self.grow, self.objects, self.least = 0, 100 * MIB, grow, objects, least

    def step(self) -> None:
        self.calls += 1
        self.bytes += self.grow(self.calls)

    def counts(self) -> dict[str, int]:
        return {self.objects: self.calls} if self.objects else {}


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Memory]:
    def make(grow: Callable[[int], int], objects: str = "", least: int = 0) -> Memory:
        made = Memory(grow, objects, least)
        monkeypatch.setattr(assertions, "find_meters", lambda: [Meter(lambda: made.bytes, "made up", made.least)])
        monkeypatch.setattr(assertions, "count_objects", made.counts)
        monkeypatch.setattr(suspects, "count_objects", made.counts)
        # Whatever other tests have loaded.
        monkeypatch.setattr(
            assertions, "find_suspects", lambda step, repeats, rate, series: suspects._by_type(step, repeats)
        )
        return made

    return make


def by(rate: int) -> Callable[[int], int]:
    return lambda call: rate


def test_a_leak_fails_with_what_grew_and_what_to_paste(memory: Any) -> None:
    leaking = memory(by(80 * KIB), "user.Node")
    with pytest.raises(MemoryGrowthError) as caught:
        assertions.assert_no_growth(leaking.step)
    assert str(caught.value) == (
        "Memory grows by 80.0 KiB a repeat (made up), above the limit of 64.0 KiB: +7.8 MiB in 100 repeats.\n"
        "  +1.0 a repeat: user.Node\n"
        "To accept it: ignore=['user.Node']"
    )
    assert isinstance(caught.value, AssertionError)
    assertions.assert_no_growth(leaking.step, ignore=["user.Node"])


def test_what_no_object_explains_is_native(memory: Any) -> None:
    leaking = memory(by(MIB))
    with pytest.raises(MemoryGrowthError, match=r"(?s)outside Python.*ignore=\['other', 'native'\]"):
        assertions.assert_no_growth(leaking.step, ignore=("other",))
    assertions.assert_no_growth(leaking.step, ignore=("native",))


@pytest.mark.parametrize(
    "grow",
    [
        by(0),
        by(60 * KIB),
        lambda call: 500 * MIB if call < 5 else 0,  # warms up
        lambda call: 500 * MIB if call == 30 else 0,  # takes a large block
        lambda call: MIB if call < 60 else 0,  # fills a cache
        lambda call: MIB if call % 2 else -MIB,
    ],
)
def test_what_settles_is_no_leak(memory: Any, grow: Callable[[int], int]) -> None:
    assertions.assert_no_growth(memory(grow).step)


def test_the_limit_and_the_repeats_are_the_users(memory: Any) -> None:
    slow = memory(by(KIB))
    assertions.assert_no_growth(slow.step, repeats=10)
    assert slow.calls == 13
    with pytest.raises(MemoryGrowthError, match="in 10 repeats"):
        assertions.assert_no_growth(slow.step, repeats=10, limit=1000)


def test_a_small_rise_of_a_coarse_meter_says_nothing(memory: Any) -> None:
    assertions.assert_no_growth(memory(by(KIB), least=100 * KIB).step, limit=1000)
    with pytest.raises(MemoryGrowthError):
        assertions.assert_no_growth(memory(by(KIB), least=49 * KIB).step, limit=1000)


def test_a_block_is_measured_as_it_is(memory: Any) -> None:
    made = memory(by(KIB), "user.Node")
    with assertions.no_growth(repeats=3, limit="1 KiB"):
        for _ in range(3):
            made.step()

    def grow() -> None:
        with assertions.no_growth(repeats=3, limit=1000):
            for _ in range(3):
                made.step()

    with pytest.raises(MemoryGrowthError, match=r"(?s)1.0 KiB a repeat.*\+1.0 a repeat: user.Node"):
        grow()


def test_an_error_of_the_step_is_the_tests_own(memory: Any) -> None:
    memory(by(MIB))
    with pytest.raises(ZeroDivisionError):
        assertions.assert_no_growth(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError), assertions.no_growth():
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"step": 1}, InvalidTypeError),
        ({"repeats": 1}, InvalidArgumentError),
        ({"repeats": 2.0}, InvalidTypeError),
        ({"limit": "much"}, InvalidArgumentError),
        ({"limit": 0}, InvalidArgumentError),
        ({"ignore": "EagerTensor"}, InvalidTypeError),
        ({"ignore": [1]}, InvalidTypeError),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"Expected .* Received: "):
        assertions.assert_no_growth(**{"step": lambda: None, **arguments})


def test_a_disabled_package_runs_the_step_once(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERASMEMWATCH_DISABLE", "1")
    leaking = memory(by(MIB))
    assertions.assert_no_growth(leaking.step)
    with assertions.no_growth():
        leaking.step()
    assert leaking.calls == 2


def test_types_that_grow_come_before_their_companions() -> None:
    before = {"tensor": 5, "cell": 100, "float": 3}
    assert grown(before, {"tensor": 25, "cell": 300, "float": 4, "new": 10}, 10) == [
        Suspect("tensor", ("+2.0 a repeat: tensor",)),
        Suspect("new", ("+1.0 a repeat: new",)),
    ]
    assert grown(before, {"cell": 300}, 10) == [Suspect("cell", ("+20.0 a repeat: cell",))]
    assert grown(before, before, 10) == []


MARKED = """
import pytest

kept = []

@pytest.fixture
def size():
    return 1_000_000

@pytest.mark.no_growth(repeats=20)
def test_that_leaks(size):
    kept.append(bytearray(b"x" * size))

@pytest.mark.no_growth(repeats=20, limit="3 MiB")
def test_within_its_limit(size):
    kept.append(bytearray(b"x" * size))

def test_without_the_marker():
    kept.append(1)
"""


@pytest.fixture
def marked(tmp_path: Path) -> str:
    (tmp_path / "test_marked.py").write_text(MARKED)
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "kerasmemwatch_pytest", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout


def test_a_marked_test_is_repeated_and_fails_if_memory_grows(marked: str) -> None:
    assert "1 failed, 2 passed" in marked, marked
    assert "MemoryGrowthError: Memory grows by" in marked and "in 20 repeats" in marked
    assert "test_that_leaks" in marked
