"""Recording of a user's own training loop: its stages and steps, and the models that the steps call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from kerasmemwatch.attribution.variables.inventory import layer_memory
from kerasmemwatch.attribution.variables.watched import Watched
from kerasmemwatch.records.run import STAGES
from kerasmemwatch.watch.base import Watcher
from kerasmemwatch.watch.last_words import may_have_survived, note_death, note_survival
from kerasmemwatch.watch.session_step import SessionStep, is_end_of_data

__all__ = ["LoopWatcher"]

# A search for live models takes a tenth of a second, and a loop may have none.
_MAX_SEARCHES = 3
_CODES = {stage: code for code, stage in enumerate(STAGES)}


class LoopWatcher(Watcher):
    """Records the steps of a loop; derived classes offer them to the loop."""

    def _watch_loop(self, models: Sequence[Any]) -> None:
        """Prepare to record a loop that calls the given models, and perhaps others."""
        self._given = Watched()
        for model in models:
            self._given.add_model(model)
        self._open = False
        self._stages: list[_Stage] = []
        self._running: SessionStep | None = None
        self._around: AbstractContextManager[None] | None = None
        self._functions: AbstractContextManager[None] = nullcontext()
        self._signature = ""
        self._died_at = 0
        self._searches_left = _MAX_SEARCHES

    @property
    def _watched(self) -> Watched:
        return self._given if self._tracing is None else self._tracing.watched

    def _begin(self) -> None:
        if not self._start() or self._recorder is None:
            return
        self._recorder.abandon_stages()
        self._recorder.begin_stage("train", single=True)
        self._train_anew()
        if self._tracing is not None:
            self._tracing.abandon()
            for model in self._given.models:
                self._tracing.watched.add_model(model)
            self._tracing.begin("train", None, None)
            self._functions = self._tracing.new_functions(lambda: self._running is not None)
            self._functions.__enter__()

    def _train_anew(self) -> None:
        """Enter training as the only stage, before its first batch."""
        self._stages = [_Stage(_CODES["train"])]

    def _end(self) -> None:
        functions, self._functions = self._functions, nullcontext()
        functions.__exit__(None, None, None)
        if self._recorder is None:
            return
        if self._tracing is not None:
            self._tracing.end()
        self._list_variables()
        self._search_leaks(is_end=True)
        self._recorder.end_stage("train")
        self._all_ended()

    @contextmanager
    def _within(self, stage: str) -> Iterator[None]:
        """Context of a stage; a loop is in training unless it says otherwise."""
        recorder, tracing = self._recorder, self._tracing
        if stage == "train" or recorder is None:
            yield
            return
        recorder.begin_stage(stage)
        self._stages.append(_Stage(_CODES[stage]))
        if tracing is not None:
            tracing.begin(stage, None, None)
        try:
            yield
        finally:
            if self._open and len(self._stages) > 1:
                del self._stages[-1]
                if tracing is not None:
                    tracing.end(stage)
                recorder.end_stage(stage)

    def _enter(self, step: SessionStep, batch: Any) -> None:
        """Begin a step, and end one still under way, such as that of an iterator kept after a ``break``."""
        recorder, tracing = self._recorder, self._tracing
        if recorder is None or not self._open:
            return
        if self._running is not None:
            self._leave(self._running, None)
        self._running = step
        if tracing is not None:
            tracing.count += 1
            if tracing.count == tracing.look_at:
                with recorder.faults.guard("trace", "No step is traced."):
                    around = tracing.around(recorder.step + 1, batch)
                    around.__enter__()
                    self._around = around
        recorder.batch_begin()

    def _leave(self, step: SessionStep | None, error: BaseException | None, ended: float = 1) -> None:
        """End a step, unless it has ended. With ``ended`` NaN, it is unknown whether an exception left it."""
        recorder, around = self._recorder, self._around
        if recorder is None or step is None or step is not self._running:
            return
        self._running = self._around = None
        if around is not None:
            around.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
        if error is not None or ended != 1:
            died = recorder.batch_left(raised=error is None or not is_end_of_data(error), ended=ended)
            self._died_at = recorder.step if died else 0
            self._tell_death(error)
        if self._dead_models is not None:
            with recorder.faults.guard("release", "Dead models stay in memory."):
                self._dead_models.look()
        if error is not None:
            return
        if ended == 1:
            stage = self._stages[-1]
            stage.batch += 1
            recorder.batch_end(stage.batch, stage.code)
            if self._leak_search is not None and recorder.step >= self._leak_search.due_step:
                self._search_leaks()
            if may_have_survived(recorder):
                note_survival(recorder)
        if around is not None:
            watched = self._watched
            if not watched.models and self._searches_left:
                self._searches_left -= 1
                # No model was seen, so the step's functions were made before the session.
                with recorder.faults.guard("models", "Models and variables are unknown. Give the session the model."):
                    watched.find_alive()
            if self._tracing is not None:
                self._batch_ended(self._tracing, recorder)
            self._list_variables()

    def _tell_death(self, error: BaseException | None) -> None:
        """Add a note to the error that left the newest step, unless Python hides it (a closed generator's)."""
        recorder, died_at = self._recorder, self._died_at
        if recorder is None or error is None or isinstance(error, GeneratorExit) or died_at != recorder.step:
            return
        self._died_at = 0
        self._list_variables()
        note_death(error, recorder, self._tracing)

    def _list_variables(self) -> None:
        """List the variables by layer, unless that is done and there are no new ones since."""
        recorder, watched = self._recorder, self._watched
        if recorder is None or (signature := watched.signature()) == self._signature:
            return
        with recorder.faults.guard("inventory", "Variables by layer are unknown."):
            variables = watched.inventory()
            self._describe(recorder, variables, layer_memory(variables))
            self._signature = signature


@dataclass(slots=True)
class _Stage:
    """A running stage, and the 0-based number of its newest batch in the epoch."""

    code: int
    batch: int = -1
