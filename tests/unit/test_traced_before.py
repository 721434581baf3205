"""Fits of a kind share what they traced, and all tracing stays a small share of the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from timelines import STEP, step

from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.tracing.traced_before import TRACED_SHARE, Fit, TracedBefore


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def layer_path(one: TracedStep) -> str:
    """The first owner that is a layer."""
    return next(path for path, kind in zip(one.timeline.owners, one.timeline.classes, strict=True) if kind)


PATH = layer_path(step(STEP))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def before(clock: Clock) -> TracedBefore:
    return TracedBefore(clock=clock)


def run(
    before: TracedBefore, clock: Clock, kind: str = "a", paths: Sequence[str] = (PATH,), lasts_s: float = 10
) -> Fit:
    """A fit, which is traced in half a second if it is to be, as step 2 and, higher, step 10."""
    fit = before.begin(kind, paths, object())
    if not fit.reuses:
        fit.run = f"run at {clock.now:.0f}"
        with before.taken():
            clock.now += 0.5
        for number in (2, 10):
            fit.expect()
            fit.add(step(STEP, number, output_bytes={PATH: 8}, notes=("uncertain",)))
    clock.now += lasts_s
    return fit


def test_two_of_thirty_are_traced_and_then_as_many_as_cost_little(before: TracedBefore, clock: Clock) -> None:
    fits = [run(before, clock, lasts_s=4) for _ in range(30)]
    assert [fit.reuses for fit in fits] == [False] * 2 + [True] * 28
    later = [run(before, clock) for _ in range(970)]
    # Not only while it is below the share, but if it will be after one more, too.
    assert before.cost_s <= TRACED_SHARE * clock.now
    assert before.cost_s >= 0.9 * TRACED_SHARE * clock.now
    assert 100 < sum(not fit.reuses for fit in later) < 210


def test_a_long_fit_pays_for_the_tracing_of_the_next(before: TracedBefore, clock: Clock) -> None:
    assert [run(before, clock, lasts_s=100).reuses for _ in range(5)] == [False] * 5


def test_each_kind_is_traced_twice_and_all_share_the_time(before: TracedBefore, clock: Clock) -> None:
    found = [[run(before, clock, kind).reuses for kind in "abc"] for _ in range(4)]
    assert found == [[False] * 3, [False] * 3, [True] * 3, [True] * 3]


def test_what_is_shown_says_whose_it_is_and_has_the_paths_of_this_fit(before: TracedBefore, clock: Clock) -> None:
    run(before, clock), run(before, clock)
    shown = run(before, clock, paths=("dense_7",)).steps()
    assert [one.step for one in shown] == [2, 10]
    for one in shown:
        assert one.measured_in == "run at 10"
        assert "measured not in this fit" in one.notes[0]
        assert f"step {one.step} of run 'run at 10'" in one.notes[0]
        assert one.notes[1:] == ("uncertain",)
        assert layer_path(one) == "dense_7"
        assert one.output_bytes == {"dense_7": 8}
        assert one.timeline.requested_bytes.tolist() == STEP.requested_bytes.tolist()


def test_nothing_is_shown_twice_in_one_recording(before: TracedBefore, clock: Clock) -> None:
    recording = object()
    fits = [before.begin("a", (PATH,), recording) for _ in range(3)]
    fits[1].expect()
    fits[1].add(step(STEP))
    assert fits[1].steps() == []


def test_without_anything_to_show_a_fit_is_traced(before: TracedBefore, clock: Clock) -> None:
    with before.taken():
        clock.now += 1
    for _ in range(2):
        fit = before.begin("a", (), object())
        fit.expect()
        fit.add(None)
    assert not before.begin("a", (), object()).reuses


def test_what_is_being_analysed_is_waited_for(before: TracedBefore, clock: Clock) -> None:
    first = before.begin("a", (PATH,), object())
    before.begin("a", (PATH,), object())
    with before.taken():
        clock.now += 1
    first.expect()
    third = before.begin("a", (PATH,), object())
    assert third.reuses
    first.add(step(STEP, 4))
    assert [one.step for one in third.steps()] == [4]


# Of either a quarter of the height or a tenth of the peak, the less; but more than what the allocator rounds up.
@pytest.mark.parametrize(
    ("height", "peak_bytes", "least"), [(1e7, 1e8, 2.5e6), (1e7, 1.2e7, 1.2e6), (1e5, 2e5, 2.0**16)]
)
def test_other_peaks_are_told_and_have_the_next_fit_traced(
    before: TracedBefore, clock: Clock, height: float, peak_bytes: float, least: float
) -> None:
    run(before, clock)
    run(before, clock).usual(height)
    third = run(before, clock)
    assert third.reuses
    third._kind.peak_bytes = peak_bytes
    assert [third.differs(height + change) for change in (0, 0.9 * least, -0.9 * least)] == [""] * 3
    assert third.differs(float("nan")) == ""
    assert run(before, clock).reuses
    assert [third.differs(height + change) for change in (1.1 * least, -1.1 * least)] == ["higher", "lower"]
    assert [run(before, clock).reuses for _ in range(2)] == [False, True]


def test_a_step_of_a_fit_that_was_not_to_be_traced_is_not_kept(before: TracedBefore, clock: Clock) -> None:
    run(before, clock), run(before, clock)
    third = run(before, clock)
    third.expect()
    third.add(step(STEP, 99))
    assert [one.step for one in run(before, clock).steps()] == [2, 10]


def test_only_the_newest_kinds_are_kept(before: TracedBefore, clock: Clock) -> None:
    for number in range(40):
        run(before, clock, f"kind {number}")
    assert len(before._kinds) == 16
    before.clear()
    assert not before._kinds
    assert before.cost_s == 0


def test_a_context_is_counted_as_it_begins_and_ends(before: TracedBefore, clock: Clock) -> None:
    class Context:
        def __enter__(self) -> None:
            clock.now += 1

        def __exit__(self, *error: object) -> None:
            clock.now += 2

    with before.around(Context()):  # type: ignore[arg-type]
        clock.now += 100
    assert before.cost_s == 3
