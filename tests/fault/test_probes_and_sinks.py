"""Probes and sinks that fail: one warning each, unknown where it failed, everything else as it is."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from fault_kit import ToyProbe, end_fit, is_toy_row, toy_recorder, train

from kerasmemwatch.errors import ProbeUnavailableError
from kerasmemwatch.recording import load
from kerasmemwatch.storage.codecs.row_codec import decode_rows

BATCHES, FAULTY_FROM = 20, 8
ODD = "odd_in_use_bytes"


class TroubleError(Exception):
    """What a probe or a sink of a test raises."""


def record(log_dir, faulty, *, first: bool, faulty_from: int = FAULTY_FROM, fits: int = 1, **options):
    """Record with a good probe and an odd one, before it or behind it."""
    odd = ToyProbe("odd", faulty, faulty_from)
    good = ToyProbe()
    recorder = toy_recorder(log_dir, probes=(odd, good) if first else (good, odd), **options)
    for _ in range(fits):
        train(recorder, BATCHES)
        end_fit(recorder)
    recorder.close()
    return recorder, good, odd


@pytest.fixture
def messages(caplog):
    caplog.set_level(logging.WARNING, "kerasmemwatch")
    return lambda: [entry.getMessage() for entry in caplog.records]


WRONG_NUMBERS = [(1.0,), (1.0, 2.0, 3.0, 4.0), (), None, 5]
WRONG_TYPES = [(None, 1.0, 2.0), ("x", 1.0, 2.0), (1.0, [], 2.0), (10**400, 1.0, 2.0)]


@pytest.mark.every
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("wrong", [TroubleError("dead"), *WRONG_NUMBERS, *WRONG_TYPES], ids=repr)
def test_a_probe_that_fails_at_a_batch(tmp_path, messages, wrong, first):
    record(tmp_path, {"batch_end": wrong}, first=first)
    recording = load(tmp_path)
    samples = recording.samples
    assert samples["step"].tolist() == list(range(1, BATCHES + 1))
    assert all(is_toy_row(samples, row) for row in range(BATCHES))  # none was read twice
    known = FAULTY_FROM - 1
    assert samples[ODD][:known].tolist() == [1001.0 + row for row in range(known)]
    assert np.isnan(samples[ODD][known:]).all()
    [message] = messages()
    assert "'odd'" in message and "unknown until the next fit" in message
    [note] = [note for note in recording.run.notes if "odd" in note]
    assert note in message


@pytest.mark.every
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("method", ["open", "batch_begin", "epoch_end", "close"])
def test_a_probe_that_fails_elsewhere(tmp_path, messages, method, first):
    faulty_from = {"batch_begin": FAULTY_FROM}.get(method, 1)
    _, good, odd = record(tmp_path, {method: TroubleError("dead")}, first=first, faulty_from=faulty_from)
    samples = load(tmp_path).samples
    assert samples["step"].tolist() == list(range(1, BATCHES + 1))
    assert all(is_toy_row(samples, row) for row in range(BATCHES))
    assert good.calls == {"open": 1, "batch_begin": BATCHES, "batch_end": BATCHES, "epoch_end": 1, "close": 1}
    assert samples["toy_uss_bytes"][-1] == 5000 + BATCHES
    if method == "batch_begin":
        assert np.isnan(samples[ODD][FAULTY_FROM - 1 :]).all() and not np.isnan(samples[ODD][: FAULTY_FROM - 1]).any()
        assert odd.calls["batch_begin"] == FAULTY_FROM
    elif method == "open":
        assert ODD not in samples
    else:
        assert not np.isnan(samples[ODD].astype(float)).any()
    [message] = messages()
    assert "dead" in message


def test_a_probe_that_is_unavailable_is_a_note_and_no_warning(tmp_path, messages):
    record(tmp_path, {"open": ProbeUnavailableError("No driver.", "Install it.")}, first=True, faulty_from=1)
    assert "Not measured (odd): No driver. Install it." in load(tmp_path).run.notes
    assert messages() == []


def test_a_probe_gets_another_chance_in_the_next_fit(tmp_path, messages):
    class Recovers(ToyProbe):
        def batch_end(self):
            self._faulty.clear() if self.calls["open"] == 2 else None
            return super().batch_end()

    odd = Recovers("odd", {"batch_end": TroubleError("dead")}, FAULTY_FROM)
    recorder = toy_recorder(tmp_path, probes=(odd, ToyProbe()))
    for _ in range(2):
        train(recorder, BATCHES)
        end_fit(recorder)
    recorder.close()
    unknown = np.isnan(load(tmp_path).samples[ODD])
    assert unknown[FAULTY_FROM - 1 : BATCHES].all() and not unknown[BATCHES:].any()
    assert len(messages()) == 1


def test_a_probe_that_fails_in_each_fit_is_told_once(tmp_path, messages):
    record(tmp_path, {"batch_end": TroubleError("dead")}, first=True, fits=3)
    assert load(tmp_path).samples.num_samples == 3 * BATCHES
    assert len(messages()) == 1


@pytest.mark.parametrize("method", ["open", "batch_begin", "batch_end", "epoch_end"])
def test_strict_raises_a_probes_fault(tmp_path, method):
    with pytest.raises(TroubleError, match="dead"):
        record(tmp_path, {method: TroubleError("dead")}, first=True, faulty_from=1, strict=True)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_passes_through(tmp_path, stop):
    with pytest.raises(stop):
        record(tmp_path, {"batch_end": stop()}, first=False)


class ToySink:
    """Keeps what it is given; raises while ``broken``."""

    def __init__(self, broken: bool = False, broken_close: bool = False) -> None:
        self.broken, self.broken_close = broken, broken_close
        self.updates, self.tries = [], 0

    def write(self, update):
        self.tries += 1
        if self.broken:
            raise TroubleError("sink is full")
        self.updates.append(update)

    def close(self):
        if self.broken_close:
            raise TroubleError("sink does not close")

    def steps(self):
        rows = [decode_rows(update.chunk)[1] for update in self.updates if update.index is not None]
        return np.concatenate(rows)[:, 0].tolist() if rows else []


@pytest.mark.parametrize("broken", [0, 1])
def test_a_sink_that_raises_holds_up_no_other_and_gets_all_later(tmp_path, messages, broken):
    sinks = [ToySink(broken=index == broken) for index in range(2)]
    recorder = toy_recorder(tmp_path, sinks=sinks)
    train(recorder, 30, lambda step: step % 10 or recorder.flush())
    end_fit(recorder)
    everything = [float(step) for step in range(1, 31)]
    assert sinks[1 - broken].steps() == everything
    assert sinks[broken].steps() == []
    assert sinks[broken].tries > 1  # it is tried again
    assert recorder.snapshot().samples["step"].tolist() == everything
    [message] = messages()
    assert "sink is full" in message and "stays in memory" in message
    sinks[broken].broken = False
    recorder.flush()
    recorder.close()
    assert sinks[0].steps() == sinks[1].steps() == everything  # nothing doubled, in order
    assert len(messages()) == 1


def test_what_no_sink_took_is_in_the_journal(tmp_path, messages):
    recorder = toy_recorder(tmp_path, sinks=[ToySink(broken=True)])
    train(recorder, 30, lambda step: step % 10 or recorder.flush())
    end_fit(recorder)
    recorder.close()
    samples = load(tmp_path).samples
    assert samples["step"].tolist() == list(range(1, 31))
    assert all(is_toy_row(samples, row) for row in range(30))
    assert len(messages()) == 1


def test_a_ring_that_runs_full_while_a_sink_is_broken_loses_nothing(tmp_path, messages):
    sink = ToySink(broken=True)
    recorder = toy_recorder(tmp_path, sinks=[sink])
    train(recorder, 20_000)
    steps = recorder.snapshot().samples["step"]
    assert steps[:8192].tolist() == list(range(1, 8193)) and steps[-1] == 20_000
    sink.broken = False
    end_fit(recorder)
    recorder.close()
    assert sink.steps() == recorder.snapshot().samples["step"].tolist()
    assert len(messages()) == 1


def test_a_sink_that_does_not_close(tmp_path, messages):
    sink = ToySink(broken_close=True)
    recorder = toy_recorder(tmp_path, sinks=[sink])
    train(recorder, 5)
    end_fit(recorder)
    recorder.close()
    assert sink.steps() == [1, 2, 3, 4, 5]
    [message] = messages()
    assert "does not close" in message


def test_strict_raises_a_sinks_fault(tmp_path):
    recorder = toy_recorder(tmp_path, sinks=[ToySink(broken=True)], strict=True)
    with pytest.raises(TroubleError, match="sink is full"):
        train(recorder, 1)
    recorder.faults.strict = False
    recorder.close()


def test_warnings_raised_as_errors_do_not_reach_training(tmp_path, messages):
    import warnings

    class Warns(ToyProbe):
        def batch_end(self):
            warnings.warn("a probe's warning", stacklevel=2)
            return super().batch_end()

    recorder = toy_recorder(tmp_path, probes=(ToyProbe(), Warns("odd")))
    train(recorder, BATCHES)  # pytest turns warnings into errors
    end_fit(recorder)
    recorder.close()
    assert all(is_toy_row(load(tmp_path).samples, row) for row in range(BATCHES))
    [message] = messages()
    assert "a probe's warning" in message
