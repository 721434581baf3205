"""What tapes hold that are alive."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from kerasmemwatch.attribution.live import persistent_tapes
from kerasmemwatch.attribution.live.persistent_tapes import keep, kept_bytes


class Tape:
    used_up = False


@pytest.fixture(autouse=True)
def _none_before() -> Iterator[None]:
    gc.collect()
    before = dict(persistent_tapes._kept)
    persistent_tapes._kept.clear()
    yield
    persistent_tapes._kept.clear()
    persistent_tapes._kept.update(before)


def holds(tape: Tape) -> bool:
    return not tape.used_up


def test_the_sum_of_those_that_hold_something() -> None:
    tapes = [Tape(), Tape(), Tape()]
    for size, tape in enumerate(tapes, start=1):
        keep(tape, size * 100, holds)
    assert kept_bytes() == 600
    tapes[0].used_up = True
    assert kept_bytes() == 500
    del tape, tapes[1:]
    assert kept_bytes() == 0
    tapes[0].used_up = False
    assert kept_bytes() == 100


def test_a_tape_that_records_again_counts_once() -> None:
    tape = Tape()
    keep(tape, 100, holds)
    keep(tape, 40, holds)
    assert kept_bytes() == 40


def test_it_keeps_no_tape_alive() -> None:
    tape = Tape()
    keep(tape, 100, holds)
    del tape
    assert len(persistent_tapes._kept) == 0


def test_tapes_may_come_and_go_in_another_thread() -> None:
    stop, errors = threading.Event(), list[BaseException]()

    def come_and_go() -> None:
        try:
            while not stop.is_set():
                keep(Tape(), 1, holds)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    kept = [Tape() for _ in range(50)]
    for tape in kept:
        keep(tape, 100, holds)
    sums = [kept_bytes() for _ in range(500)]
    stop.set()
    thread.join()
    assert not errors
    assert all(5000 <= total <= 5001 for total in sums)
