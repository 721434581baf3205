"""Which threads work for a step, and which for something else."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from kerasmemwatch.attribution.hooks import other_fits


class Training:
    """Stands for a tracer."""


def in_thread(work: Callable[[], bool]) -> bool:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def test_a_thread_that_ran_before_the_step_works_for_something_else() -> None:
    own, asked = Training(), threading.Event()
    found: list[bool] = []

    def work() -> None:
        asked.wait()
        found.append(is_elsewhere())

    thread = threading.Thread(target=work)
    thread.start()
    is_elsewhere = other_fits.elsewhere(own)
    asked.set()
    thread.join()
    assert found == [True]
    assert not is_elsewhere()


def test_a_thread_that_the_step_starts_works_for_it_unless_it_trains() -> None:
    own, other = Training(), Training()
    is_elsewhere = other_fits.elsewhere(own)
    assert not in_thread(is_elsewhere)

    def trains() -> bool:
        other_fits.begin(other)
        try:
            return is_elsewhere()
        finally:
            other_fits.end(other)

    assert in_thread(trains)


def test_a_new_thread_with_the_number_of_an_ended_one_works_for_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    own, go_on = Training(), threading.Event()
    thread = threading.Thread(target=go_on.wait)
    thread.start()
    is_elsewhere = other_fits.elsewhere(own)
    monkeypatch.setattr(other_fits, "get_ident", lambda: thread.ident)
    assert is_elsewhere()
    go_on.set()
    thread.join()
    assert not is_elsewhere()


def test_what_is_returned_keeps_no_training_alive() -> None:
    own = Training()
    kept = other_fits.elsewhere(own)
    other_fits.begin(own)
    del own
    assert not kept()
    assert not [each for each in other_fits._threads if isinstance(each, Training)]
