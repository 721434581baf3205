"""Recording of Keras' own loops: when a stage begins, what follows a batch, and whether a loop was left early."""

from __future__ import annotations

import sys
import weakref
from typing import Any

import keras

from kerasmemwatch.attribution.variables.watched_models import Inventories
from kerasmemwatch.compat.keras import ADAPTER_DATASET, CURRENT_ITERATOR, DATA_ADAPTER
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.sampling.stage_stack import num_executions
from kerasmemwatch.tracing.fit_kind import batch_rows
from kerasmemwatch.watch.base import Watcher
from kerasmemwatch.watch.callback_lists import running_lists
from kerasmemwatch.watch.known_fills import KnownFills
from kerasmemwatch.watch.last_words import may_have_survived, note_death, note_survival
from kerasmemwatch.watch.search.call_search import CALL_SEARCH
from kerasmemwatch.watch.step_loop import lasts_for_epochs, running_iterator, tell_how_loops_end

__all__ = ["FitWatcher"]


class FitWatcher(Watcher, keras.callbacks.Callback):
    """Records the stages of a model; Keras tells the derived class when they begin and end."""

    def _watch_fits(self) -> None:
        """Prepare to record fits."""
        self._inventories = Inventories()
        self._num_models = 0
        self._begun_anew = True
        # Work due after the next batch: list the variables, check what a traced step left.
        self._attention = self._inventory_due = self._results_due = False

    def __getstate__(self) -> dict[str, Any]:
        # A copy keeps the options and the recording so far; it records a run of its own.
        state = {
            **self.__dict__,
            "_recorder": None,
            "_reference": None,
            "_inventories": Inventories(),
            "_num_models": 0,
            "_tracing": None,
            "_leak_search": None,
            "_attention": False,
            "_inventory_due": False,
            "_results_due": False,
            "_fills": KnownFills(),
        }
        recording = self.recording
        return {**state, "_kept": recording if recording.samples.num_samples else None}

    @property
    def _model(self) -> Any:
        # Weak: a watch kept for its report must not keep the model or what the model holds.
        return self._reference and self._reference()

    @_model.setter
    def _model(self, model: Any) -> None:
        self._reference = None if model is None else weakref.ref(model)

    def set_params(self, params: dict[str, Any] | None) -> None:
        """Called when a list of callbacks is made: any earlier stage has ended, perhaps in an exception."""
        super().set_params(params)
        self._begun_anew = True

    def _begin(self, stage: str, *, single: bool = False) -> bool:
        with self._faults.guard("begin", "Nothing is recorded."):
            if not self._begin_stage(stage, single=single):
                return False
            if self._dead_models is not None:
                with self._faults.guard("release", "Dead models stay in memory."):
                    self._dead_models.begin(self._model)
            # Single batches have no list, and no gap is traced between them.
            running = None if single else next(running_lists(self), None)
            if self._leak_search is not None and running is not None:
                self._leak_search.end_with(running)
            if self._tracing is not None:
                callbacks = (lambda: None) if running is None else weakref.ref(running)
                executions = num_executions(self.params or {}, self._model, stage)
                self._tracing.begin(stage, self._model, executions, single=single, callbacks=callbacks)
            if not single and keras.config.backend() == "tensorflow":
                tell_how_loops_end(self._loop_left, every_epoch=stage == "train")
                self._note_fills(stage)
            return True
        return False

    def _note_fills(self, stage: str) -> None:
        """Note what the stage that begins is known to fill."""
        recorder = self._recorder
        if recorder is not None and (stage == "train" or not recorder.has_trained):
            loop = running_iterator()
            dataset = ADAPTER_DATASET.of(DATA_ADAPTER.of(loop))
            self._fills.begin(recorder, dataset, is_one_pass=lasts_for_epochs(loop))
        if stage == "predict":
            self._attention = self._results_due = True

    def _read_caches(self) -> None:
        """Called at the end of an epoch."""
        if self._recorder is not None and self._fills.is_due(self._recorder):
            self._fills.read(self._recorder, CURRENT_ITERATOR.of(running_iterator()))

    def _loop_left(self, error: BaseException | None, iterator: Any = None) -> None:
        """Called when the loop of steps has ended; an exception may have left it in the middle of a batch."""
        raised = error is not None
        if raised and self._leak_search is not None:
            self._leak_search.abandon()
        if self._tracing is not None:
            faults = self._faults if self._recorder is None else self._recorder.faults
            with faults.guard("trace", "The gap after this loop is not traced."):
                (self._tracing.left if raised else self._tracing.loop_ended)()
        recorder = self._recorder
        if recorder is None:
            return
        died = recorder.batch_left(raised=raised)
        if died and self._inventory_due:
            self._take_inventory()
        if died and error is not None:
            note_death(error, recorder, self._tracing, self._model, _rows(recorder, iterator))
        elif error is None and may_have_survived(recorder):
            note_survival(recorder, _rows(recorder, iterator))

    def _begin_stage(self, stage: str, *, single: bool) -> bool:
        before = self._recorder
        if not self._start() or self._recorder is None:
            return False
        if self._begun_anew:
            # Unless another callback of a running fit started this stage.
            if len(list(running_lists(self))) < 2:
                self._recorder.abandon_stages()
                if self._tracing is not None:
                    self._tracing.abandon()
            self._begun_anew = False
        self._num_models += self._model is not None and not self._inventories.has_listed(self._model)
        per_execution = getattr(self._model, "steps_per_execution", None) or 1
        self._recorder.begin_stage(stage, per_execution, model=self._num_models, single=single)
        if self._leak_search is not None and not single and not self._recorder.is_nested:
            CALL_SEARCH.begin(stage, self._model, self._recorder)
        is_new = self._recorder is not before
        self._inventory_due = self._model is not None and (is_new or not self._inventories.knows(self._model))
        self._attention = self._inventory_due
        return True

    def _end(self, stage: str) -> None:
        if self._recorder is not None:
            if self._tracing is not None:
                self._tracing.end(stage)
            self._search_leaks(self._model, is_end=True)
            if self._leak_search is not None and not self._recorder.is_nested:
                CALL_SEARCH.end(self._recorder, sys._getframe(), self._model)
            self._recorder.end_stage(stage)
            self._all_ended()
            if self._dead_models is not None:
                with self._recorder.faults.guard("release", "Dead models stay in memory."):
                    self._dead_models.look()
            self._raise_leaks()

    def _look(self) -> None:
        """Called before a batch that may be worth tracing."""
        tracing, recorder = self._tracing, self._recorder
        if tracing is None or recorder is None:
            return
        with recorder.faults.guard("trace", "No step is traced."):
            executed = getattr(self._model, "steps_per_execution", None) or 1
            self._attention |= tracing.look(self._model, recorder.step + 1, executed)

    def _after_batch(self, logs: dict[str, Any] | None = None) -> None:
        self._attention = False
        recorder, tracing = self._recorder, self._tracing
        if self._results_due:
            self._results_due = False
            if recorder is not None and recorder.stage == "predict":
                executed = getattr(self._model, "steps_per_execution", None) or 1
                self._fills.note_results(recorder, logs or {}, executed)
        if self._inventory_due:
            self._take_inventory()
        if recorder is not None and tracing is not None:
            self._batch_ended(tracing, recorder)

    def _take_inventory(self) -> None:
        """List the variables after a batch, because a model and an optimizer may not be built earlier."""
        self._inventory_due = False
        recorder = self._recorder
        if recorder is None or self._model is None:
            return
        with recorder.faults.guard("inventory", "Variables by layer are unknown."):
            variables = self._inventories.take(self._model)
            self._describe(recorder, variables, self._inventories.layers())


def _rows(recorder: Recorder, iterator: Any) -> int | None:
    """Rows of the batches of a loop's iterator, if its data tell."""
    with recorder.faults.guard("out of memory", "The batch's rows are unknown."):
        return batch_rows(DATA_ADAPTER.of(iterator))
    return None
