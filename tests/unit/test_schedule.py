from __future__ import annotations

import pytest

from kerasmemwatch.tracing.schedule import TraceBudget, TraceSchedule


def looks(
    schedule: TraceSchedule, steps: int, peaks: dict[int, float] | None = None, *, base: float = 0
) -> dict[int, str]:
    """Run a stage of so many executions, asking only when the schedule wants to be asked; ``base`` stays in use."""
    found, due, seen = {}, schedule.next_look(0, 0), []
    for count in range(1, steps + 1):
        if count == due:
            reason = schedule.reason(count, step=count, peaks=lambda: seen)
            if reason:
                found[count] = reason
            due = schedule.next_look(count, count)
        peak = (peaks or {}).get(count, 100.0)
        seen.append((base + peak, peak))
    return found


def test_the_second_and_a_later_step_are_traced():
    assert looks(TraceSchedule("auto"), 500) == {2: "the second step", 10: "a later step"}


def test_what_is_planned_is_known_before():
    schedule = TraceSchedule("auto")
    assert [count for count in range(1, 200) if schedule.plans(count)] == [2, 10]
    assert TraceSchedule([5]).plans(TraceSchedule([5]).next_look(1, 1))
    schedule.budget.spent = 4
    assert not schedule.plans(10)


def test_a_stage_of_one_step_is_traced_all_the_same():
    assert looks(TraceSchedule("auto", total_steps=1), 1) == {1: "the first step"}


def test_a_lasting_rise_is_traced_and_a_short_one_is_not():
    lasting = dict.fromkeys(range(200, 1000), 120.0)
    assert list(looks(TraceSchedule("auto"), 1000, lasting)) == [2, 10, 256]
    short = dict.fromkeys(range(250, 254), 120.0)
    assert list(looks(TraceSchedule("auto"), 1000, short)) == [2, 10]


def test_a_smaller_batch_is_traced_too():
    found = looks(TraceSchedule("auto"), 1000, dict.fromkeys(range(300, 1001), 50.0))
    assert found[320] == "the peak had been lower for 8 steps"


def test_of_a_fit_six_steps_are_traced_and_the_last_is_left_for_the_peak():
    peaks = {step: 100.0 * 1.5 ** (step // 128) for step in range(1, 3000)}
    schedule = TraceSchedule("auto")
    assert len(looks(schedule, 3000, peaks)) == 5
    assert schedule.reason(3008, 3008, higher=lambda: "the peak was there") == "the peak was there"
    assert schedule.reason(3072, 3072, higher=lambda: "the peak was there") == ""
    assert schedule.next_look(3072, 3072) > 10**9


def test_what_is_traced_of_a_fit_is_shared_by_its_stages():
    budget = TraceBudget()
    training, validation = TraceSchedule("auto", budget=budget, first=True), TraceSchedule("auto", budget=budget)
    assert list(looks(training, 12)) == [1, 2, 10]
    assert list(looks(validation, 12)) == [2]  # two are left for what holds the peak
    assert budget.spent == 4


def test_a_short_fit_is_looked_at_too():
    schedule = TraceSchedule("auto")
    found, count = [], 0
    while (count := schedule.next_look(count, count)) < 200:
        found.append(count)
    assert found == [2, 10, 16, 32, 64, 128, 192]


def test_what_another_fit_had_traced_costs_nothing():
    schedule = TraceSchedule("auto", first=True)
    assert schedule.reason(1, step=1)
    schedule.show_others(spared=True)
    assert (schedule.traced, schedule.budget.spent) == (0, 0)


def test_listed_steps_are_traced_within_the_execution_that_runs_them():
    schedule = TraceSchedule([6, 9])
    found = [step for step in range(1, 20, 4) if schedule.reason(1, step=step, executed=4)]
    assert found == [5, 9]


def test_larger_batches_are_seen_in_a_process_that_holds_much_else():
    larger = dict.fromkeys(range(70, 200), 300.0)
    assert list(looks(TraceSchedule("auto"), 200, larger, base=100_000.0)) == [2, 10, 128]


@pytest.mark.parametrize("peaks", [[], [(float("nan"), float("nan"))] * 64, [(100.0, 100.0)] * 3])
def test_unknown_peaks_change_nothing(peaks):
    schedule = TraceSchedule("auto")
    assert schedule.reason(64, step=64, peaks=lambda: peaks) == ""
    assert schedule.reason(128, step=128, peaks=lambda: peaks) == ""


def test_a_busy_profiler_is_tried_again_with_the_next_execution():
    schedule = TraceSchedule("auto")
    reason = schedule.reason(2, step=2)
    schedule.yielded(reason)
    assert schedule.next_look(2, 2) == 3
    assert schedule.reason(3, step=3) == "the second step"
    assert schedule.next_look(3, 3) == 10


def test_a_listed_step_is_asked_for_when_it_comes_and_not_before():
    schedule = TraceSchedule([100, 300])
    assert [schedule.next_look(1, 1), schedule.next_look(100, 100)] == [100, 300]
    assert schedule.next_look(1, 1, 4) == 25  # the execution that runs 97 to 100
    assert schedule.reason(25, step=97, executed=4) == "asked for"
    assert schedule.next_look(300, 300) > 10**9


def test_peaks_are_read_only_to_judge_a_change():
    schedule, read = TraceSchedule("auto"), []
    for count in (1, 2, 10, 16, 32):
        schedule.reason(count, step=count, peaks=lambda: read.append(0) or ())
    assert len(read) == 1  # of the first, which is not planned; 16 and 32 are looks for the peak only


def test_a_change_that_was_traced_for_its_peak_is_not_traced_again():
    schedule, low, high = TraceSchedule("auto"), [(100.0, 100.0)] * 8, [(200.0, 200.0)] * 8
    assert schedule.reason(64, 64, peaks=lambda: low) == ""
    assert schedule.reason(128, 128, peaks=lambda: high, higher=lambda: "the peak was there") == "the peak was there"
    assert schedule.reason(129, 129, peaks=lambda: high) == ""
    assert schedule.reason(192, 192, peaks=lambda: low) == "the peak had been lower for 8 steps"
