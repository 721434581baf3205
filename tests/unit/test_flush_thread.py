"""The thread that stores rows: when it wakes, and that it ends."""

from __future__ import annotations

import gc
import threading
import weakref

from kerasmemwatch.storage.flush_thread import FlushThread

# How long to wait for what must happen; nothing waits this long unless it fails.
PATIENCE_S = 30.0


class Target:
    """Counts flushes; its interval is so long that only a wake-up makes one."""

    flush_interval_s = 3600.0

    def __init__(self) -> None:
        self.flushed = threading.Event()
        self.count = 0

    def flush(self) -> None:
        self.count += 1
        self.flushed.set()


def ended(flusher: FlushThread) -> bool:
    flusher.thread.join(PATIENCE_S)
    return not flusher.thread.is_alive()


def test_flushes_when_woken() -> None:
    target = Target()
    flusher = FlushThread(target)
    for count in (1, 2):
        flusher.wake()
        assert target.flushed.wait(PATIENCE_S)
        assert target.count == count
        target.flushed.clear()
    flusher.stop()
    assert ended(flusher)


def test_flushes_when_the_interval_is_over() -> None:
    class Eager(Target):
        flush_interval_s = 0.0

    target = Eager()
    flusher = FlushThread(target)
    assert target.flushed.wait(PATIENCE_S)
    flusher.stop()
    assert ended(flusher)


def test_a_stopped_flusher_does_not_flush() -> None:
    target = Target()
    flusher = FlushThread(target)
    flusher.stop()
    assert ended(flusher)
    flusher.wake()
    assert target.count == 0


def test_keeps_no_target_alive_and_ends_with_it() -> None:
    target = Target()
    flusher = FlushThread(target)
    reference = weakref.ref(target)
    del target
    gc.collect()
    assert reference() is None
    assert ended(flusher)


def test_does_not_keep_the_process_alive() -> None:
    target = Target()
    flusher = FlushThread(target)
    assert flusher.thread.daemon
    flusher.stop()
    assert ended(flusher)


def test_closes_a_target_that_nobody_else_holds_and_ends() -> None:
    class Closable(Target):
        closed_in = ""

        def close(self) -> None:
            Closable.closed_in = threading.current_thread().name

    target = Closable()
    flusher = FlushThread(target)
    reference = weakref.ref(target)
    flusher.close(target)
    del target
    assert ended(flusher)
    gc.collect()
    assert Closable.closed_in == "kerasmemwatch-flush" and reference() is None
