"""Budgets against real leaks, and against fits that leak nothing."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from kerasmemwatch.errors import MemoryBudgetExceededError, MemWatchError
from kerasmemwatch.units import MIB
from kerasmemwatch.watch.memory_budget import MemoryBudget
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

LEAK_BYTES = 4 * MIB
STEPS = 60


def in_use(tools: Any) -> int:
    return int(tools.memory()["current"])


@pytest.fixture
def leak(tools: Any) -> Any:
    """``leak(kept)``: a callback that keeps 4 MiB more after each batch."""

    def leak(kept: list[Any], size: int = LEAK_BYTES) -> Any:
        return tools.callback(on_train_batch_end=lambda batch: kept.append(tf.fill((size // 4,), 1.0)))

    return leak


@pytest.mark.parametrize("options", [{}, {"action": "raise"}, {"device": None, "host": None}])
def test_a_budget_without_a_limit(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Expected a limit") as caught:
        MemoryBudget(**options)
    assert isinstance(caught.value, MemWatchError)


@pytest.mark.every
@pytest.mark.parametrize("limit", [0, -1, "0%", "101%", "-5%", "nan%", "a%", "12 bananas"])
@pytest.mark.parametrize("kind", ["device", "host"])
def test_a_limit_that_is_none(kind: str, limit: Any) -> None:
    with pytest.raises(ValueError, match=f"{kind}="):
        MemoryBudget(**{kind: limit})


REACHED = r"at \+4\.\d* MiB a step it will be met in 2 steps"


@pytest.mark.parametrize("budget_first", [True, False])
def test_a_leak_stops_the_fit_before_the_limit(build: Any, tools: Any, leak: Any, budget_first: bool) -> None:
    case, kept, stored = build(), [], []
    case.fit_steadily(1)
    limit = in_use(tools) + 40 * LEAK_BYTES
    budget = MemoryBudget(device=limit, action="stop")
    measure = tools.callback(on_train_batch_end=lambda batch: stored.append(in_use(tools)))
    leaking = leak(kept)
    case.fit_steadily(STEPS, callbacks=[budget, leaking, measure] if budget_first else [leaking, budget, measure])
    assert budget.reason is not None
    assert max(stored) < limit
    assert 30 <= len(kept) <= 40  # not much too early either
    assert len(stored) == len(kept)
    assert re.search(REACHED, budget.reason), budget.reason


def test_a_leak_of_the_host_stops_the_fit_before_the_limit(run_forked_python: Any) -> None:
    """In a process of its own: memory that earlier tests have freed may go back to the system meanwhile."""
    script = f"""
        import json
        import mmap
        import keras
        import numpy as np
        import psutil
        from kerasmemwatch import MemoryBudget

        class Leak(keras.callbacks.Callback):
            def __init__(self):
                super().__init__()
                self.kept, self.rss = [], []

            def on_train_batch_end(self, batch, logs=None):
                self.kept.append(mmap.mmap(-1, {LEAK_BYTES}))
                self.kept[-1].write(bytes({LEAK_BYTES}))
                self.rss.append(psutil.Process().memory_info().rss)

        model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4)])
        model.compile("sgd", "mse")
        x = np.ones(({STEPS} * 8, 8), "float32")
        model.fit(x, x[:, :4], batch_size=8, verbose=0)
        limit = psutil.Process().memory_info().rss + 40 * {LEAK_BYTES}
        leak, budget = Leak(), MemoryBudget(host=limit, action="stop")
        model.fit(x, x[:, :4], batch_size=8, verbose=0, callbacks=[leak, budget])
        print(json.dumps([limit, leak.rss, budget.reason]))
    """
    limit, rss, reason = json.loads(run_forked_python(script).stdout.splitlines()[-1])
    assert max(rss) < limit
    assert rss[-1] > limit - 10 * LEAK_BYTES  # not much too early either
    assert len(rss) < STEPS
    assert re.search(REACHED, reason), reason


def test_a_leak_raises(build: Any, tools: Any, leak: Any) -> None:
    case, kept = build(), []
    case.fit_steadily(1)
    limit = in_use(tools) + 40 * LEAK_BYTES
    budget = MemoryBudget(device=limit, action="raise")
    with pytest.raises(MemoryBudgetExceededError, match=re.escape("CPU:0 is at")) as caught:
        case.fit_steadily(STEPS, callbacks=[leak(kept), budget])
    assert isinstance(caught.value, MemoryError)
    assert in_use(tools) < limit
    assert len(kept) <= 40
    kept.clear()
    # A fit that has room goes through.
    case.fit_steadily(STEPS, callbacks=[MemoryBudget(device=limit, action="raise")])


def test_a_leak_that_may_go_on_warns(build: Any, tools: Any, leak: Any, our_log: Any) -> None:
    case, kept, size = build(), [], 256 * 1024
    case.fit_steadily(1)
    budget = MemoryBudget(device=in_use(tools) + 300 * size, action="warn")
    case.fit_steadily(20, epochs=7, callbacks=[leak(kept, size), budget])
    assert len(kept) == 140
    assert budget.reason is None
    [record] = our_log()
    assert record.levelno == logging.WARNING
    # As soon as the verdict says so, long before the limit.
    told = re.search(
        r"and grows: at \+2[56]\d\.\d KiB a step it will be met in (\d+) steps, at about", record.getMessage()
    )
    assert told is not None, record.getMessage()
    assert 150 <= int(told[1]) <= 260


def test_within_the_first_epoch_a_leak_only_warns_near_the_limit(
    build: Any, tools: Any, leak: Any, our_log: Any
) -> None:
    case, kept = build(), []
    case.fit_steadily(1)
    budget = MemoryBudget(device=in_use(tools) + 40 * LEAK_BYTES, action="warn")
    case.fit_steadily(STEPS, callbacks=[leak(kept), budget])
    assert len(kept) == STEPS
    assert budget.reason is not None
    [record] = our_log()
    assert re.search(REACHED, record.getMessage()), record.getMessage()


@pytest.mark.parametrize("action", ["stop", "warn"])
def test_growth_from_fit_to_fit_ends_before_the_limit(build: Any, tools: Any, our_log: Any, action: str) -> None:
    case, kept, reasons, ran = build(), [], [], []
    case.fit_steadily(2)
    budget = MemoryBudget(device=in_use(tools) + 10 * LEAK_BYTES, action=action)
    count = tools.callback(on_train_batch_end=ran.append)
    for _ in range(14):
        kept.append(tf.fill((LEAK_BYTES // 4,), 1.0))
        case.fit_steadily(2, callbacks=[budget, count])
        reasons.append(budget.reason)
    first = next(index for index, reason in enumerate(reasons) if reason)
    assert 7 <= first <= 9  # the tenth would meet it
    assert re.search(r"and grows: at \+4\.\d MiB a fit it will be met in 1 fit\.", reasons[first])
    assert all(reasons[first:])  # and goes on to act
    assert len(ran) == (28 if action == "warn" else 2 * first + 14 - first)
    early = our_log()[0].getMessage()
    assert re.search(r"a fit it will be met in \d fits\.", early), early


def test_a_limit_that_is_met_at_once(build: Any, tools: Any) -> None:
    case, budget = build(), MemoryBudget(device=1)
    history = case.fit_steadily(STEPS, epochs=3, callbacks=[budget])
    assert history.epoch == [0]
    assert int(case.model.optimizer.iterations) == 1
    assert budget.reason is not None and "it was met" in budget.reason


@pytest.mark.parametrize("action", ["stop", "raise"])
@pytest.mark.parametrize("stage", ["test", "predict"])
def test_evaluate_and_predict_never_return_a_part(build: Any, tools: Any, stage: str, action: str) -> None:
    case, batches = build(), []
    budget, count = MemoryBudget(device=1, action=action), tools.callback(**{f"on_{stage}_batch_end": batches.append})
    method = {"test": "evaluate", "predict": "predict"}[stage]
    data = [case.x, case.y][: 2 if stage == "test" else 1]
    with pytest.raises(MemoryBudgetExceededError, match=f"it was met. {method} was ended"):
        getattr(case.model, method)(*data, batch_size=8, verbose=0, callbacks=[count, budget])
    assert batches == [0]
    # The next one has another budget, and is whole.
    budget.device = "1 TiB"
    getattr(case.model, method)(*data, batch_size=8, verbose=0, callbacks=[count, budget])
    assert batches == [0, *range(8)]
    assert budget.reason is None


def test_a_budget_that_is_met_in_validation_ends_the_fit_after_it(build: Any, tools: Any, our_log: Any) -> None:
    def grow(batch: int) -> None:
        kept.append(tf.fill((32 * LEAK_BYTES // 4,), 1.0))

    case, kept, batches = build(), [], []
    case.fit_steadily(1)
    budget = MemoryBudget(device=in_use(tools) + 32 * LEAK_BYTES)
    others = tools.callback(on_test_batch_begin=grow, on_test_batch_end=batches.append)
    data = (case.x, case.y)
    history = case.fit(epochs=3, validation_data=data, validation_batch_size=16, callbacks=[others, budget])
    assert batches == [0, 1, 2, 3]
    assert history.epoch == [0]
    whole = case.model.evaluate(*data, batch_size=16, verbose=0)
    assert history.history["val_loss"] == [pytest.approx(whole)]
    assert "Training is stopped once what runs within it has ended" in our_log()[-1].getMessage()


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_a_budget_that_is_met_within_another_models_fit_ends_that(build: Any, tools: Any, stage: str) -> None:
    """A callback that asks a second model, with the same budget."""

    def ask(batch: int) -> None:
        kept.append(tf.fill((32 * LEAK_BYTES // 4,), 1.0))
        asked.append(np.size(getattr(other.model, {"test": "evaluate", "predict": "predict"}[stage])(*data, **options)))

    case, kept, asked = build(), [], []
    other = build("cnn")
    data = [other.x, other.y][: 2 if stage == "test" else 1]
    whole = np.size(getattr(other.model, {"test": "evaluate", "predict": "predict"}[stage])(*data, verbose=0))
    budget = MemoryBudget(device=in_use(tools) + 32 * LEAK_BYTES)
    options = {"batch_size": 8, "verbose": 0, "callbacks": [budget]}
    nested = tools.callback(on_train_batch_begin=lambda batch: batch == 2 and ask(batch))
    history = case.fit(epochs=3, callbacks=[budget, nested])
    assert asked == [whole]
    assert history.epoch == [0]
    assert int(case.model.optimizer.iterations) == 3


def test_a_fit_that_evaluates_within_goes_on_being_watched(build: Any, tools: Any, leak: Any) -> None:
    def evaluate(batch: int) -> None:
        case.model.evaluate(case.x, case.y, verbose=0, callbacks=[budget])

    case, kept = build(), []
    case.fit_steadily(1)
    budget = MemoryBudget(device=in_use(tools) + 40 * LEAK_BYTES)
    nested = tools.callback(on_train_batch_end=lambda batch: batch == 2 and evaluate(batch))
    case.fit_steadily(STEPS, callbacks=[leak(kept), budget, nested])
    assert budget.reason is not None
    assert 30 <= len(kept) <= 40


def test_a_fit_after_one_that_raised_is_watched(build: Any, tools: Any) -> None:
    def fail(batch: int) -> None:
        raise ValueError("on purpose")

    case, budget = build(), MemoryBudget(device="1 TiB")
    with pytest.raises(ValueError, match="on purpose"):
        case.fit(callbacks=[budget, tools.callback(on_train_batch_end=fail)])
    budget.device = 1
    case.fit(callbacks=[budget])
    assert budget.reason is not None


def test_a_share_of_the_memory(build: Any, tools: Any) -> None:
    case = build()
    fine, met = MemoryBudget(device="90%", host="99.5%"), MemoryBudget(device="0.0000001%", host="100%")
    case.fit_steadily(5, callbacks=[fine])
    assert fine.reason is None
    case.fit_steadily(5, callbacks=[met])
    assert met.reason is not None and met.reason.startswith("Memory of CPU:0 is at")
    met = MemoryBudget(host="0.0000001%")
    case.fit_steadily(5, callbacks=[met])
    assert met.reason is not None and met.reason.startswith("Host memory")


@pytest.mark.parametrize("budget_first", [True, False])
def test_beside_a_watch_both_are_exact(
    build: Any, tools: Any, tmp_path: Path, our_log: Any, budget_first: bool
) -> None:
    def spike(batch: int) -> None:
        if batch == 5:
            tf.fill((16 * LEAK_BYTES // 4,), 1.0).numpy()

    spiking = tools.callback(on_train_batch_begin=spike)
    case, alone = build(), MemoryWatch(None, strict=True)
    case.fit_steadily(12, callbacks=[alone, spiking])
    peak = alone.report.peak.bytes or 0
    watch = MemoryWatch(tmp_path, strict=True)
    budgets = [MemoryBudget(device=peak - LEAK_BYTES, action="warn"), MemoryBudget(device=peak + 16 * LEAK_BYTES)]
    case.fit_steadily(12, callbacks=[*budgets, watch, spiking] if budget_first else [watch, *budgets, spiking])
    recording = tools.read_back(watch, tmp_path)
    high = recording.samples["device_peak_bytes"][:, 0] >= 16 * LEAK_BYTES
    assert recording.samples["step"][high].tolist() == [6]
    assert budgets[0].reason is not None
    assert budgets[1].reason is None
    shown = re.search(r"is at ([\d.]+) MiB", our_log()[0].getMessage())
    assert shown is not None
    assert float(shown[1]) == pytest.approx(recording.samples["device_peak_bytes"].max() / MIB, rel=0.01)


@pytest.mark.long
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_clean_fit_raises_no_alarm(build: Any, tools: Any, our_log: Any, name: str) -> None:
    case, watch = build(name), MemoryWatch(None, strict=True)
    case.fit(epochs=4, callbacks=[watch])
    # Room for the batches that wait where the machine is busy.
    budget = MemoryBudget(device=(watch.report.peak.bytes or 0) + 2 * MIB, action="raise")
    case.fit(epochs=38, callbacks=[budget])  # 304 steps
    assert budget.reason is None
    assert not our_log()
