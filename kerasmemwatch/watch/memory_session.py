"""``MemorySession``: records a training loop of the user's own, as ``MemoryWatch`` does a fit."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from os import PathLike
from types import TracebackType
from typing import Any, TypeVar

from kerasmemwatch.attribution.variables.inventory import check_model, layer_memory
from kerasmemwatch.attribution.variables.watched import Watched
from kerasmemwatch.errors import InvalidArgumentError, InvalidTypeError, SessionError
from kerasmemwatch.probes.base import UNKNOWN, Probe
from kerasmemwatch.records.run import STAGES
from kerasmemwatch.storage.sinks.base import Sink
from kerasmemwatch.watch.base import Watcher
from kerasmemwatch.watch.options import Options
from kerasmemwatch.watch.session_step import SessionStep, consumers, is_end_of_data

__all__ = ["MemorySession"]

Batch = TypeVar("Batch")
# A search for models that are alive takes a tenth of a second, and a loop may have none.
_MOST_SEARCHES = 3
_CODES = {stage: code for code, stage in enumerate(STAGES)}


class MemorySession(Watcher):
    """Records device and host memory of every step of a training loop, and traces some steps.

    What is inside a step is told apart from what is between two steps. The models that the steps call, and the
    optimizers, are found by themselves; a model that is given is known from the first step on.

    Args:
        model: A Keras model or layer, a ``tf.Module``, or a list of them; ``None`` finds those that are called while a
            step is traced.
        log_dir: Where to write; each session and process writes a run of its own below it. ``None`` writes nothing.
        run_name: Name of the run's directory; by default made from the time.
        tags: Words of your own to find the run by.
        sample_every: Record every n-th step; a row then covers all steps since the last.
        reset_peak: Whether to reset the allocator's peak counter at the steps' boundaries.
        trace: Which steps to trace: ``"auto"`` (the second and a later one, on a GPU the first, too, and another when
            the peak changes for good or is higher), a list of ``step``s, or ``False``.
        detect_leaks: Whether to look for causes of growth; accepted, but this version looks for none.
        add_to_logs: Accepted for the sake of options shared with ``MemoryWatch``: a loop has no logs, see ``logs``.
        verbose: Whether ``epochs`` prints a line of memory after each epoch; ``"auto"`` does not.
        probes: What to read, in place of the default probes.
        sinks: Where to write, in place of TensorBoard.
        strict: Whether to raise faults of our own instead of logging each once. For tests.

    Raises:
        InvalidTypeError: If an argument has the wrong type (a ``TypeError``).
        InvalidArgumentError: If its value is impossible (a ``ValueError``).
        LogDirError: If ``log_dir`` is a file or not writable (an ``OSError``).

    Example:
        >>> import keras, tensorflow as tf
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> optimizer = keras.optimizers.SGD()
        >>> data = tf.data.Dataset.from_tensors((tf.ones((32, 8)), tf.ones((32, 4)))).repeat(3)
        >>> with MemorySession(model, log_dir=None) as session:
        ...     for epoch in session.epochs(2):
        ...         for x, y in session.steps(data):
        ...             with tf.GradientTape() as tape:
        ...                 loss = keras.ops.mean((model(x) - y) ** 2)
        ...             optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)
        >>> session.recording.samples["train_step"].tolist()
        [1, 2, 3, 4, 5, 6]
        >>> session.report.weights_bytes
        144
    """

    def __init__(
        self,
        model: Any = None,
        log_dir: str | PathLike[str] | None = "logs",
        *,
        run_name: str | None = None,
        tags: Sequence[str] = (),
        sample_every: int = 1,
        reset_peak: bool = True,
        trace: Any = "auto",
        detect_leaks: bool = True,
        add_to_logs: bool = False,
        verbose: bool | int | str = "auto",
        probes: Sequence[Probe] | None = None,
        sinks: Sequence[Sink] | None = None,
        strict: bool = False,
    ) -> None:
        self._set_up(
            Options(
                log_dir,  # type: ignore[arg-type]
                run_name,
                tags,  # type: ignore[arg-type]
                sample_every,
                reset_peak,
                trace,
                detect_leaks,
                add_to_logs,
                verbose,
                probes,
                sinks,
                strict,
            )
        )
        models = model if isinstance(model, (list, tuple)) else [] if model is None else [model]
        for each in models:
            check_model(each)
        self._given = Watched()
        for each in models:
            self._given.add_model(each)
        self._open = False
        self._stages: list[_Stage] = []
        self._step = SessionStep(self)
        self._running: SessionStep | None = None
        self._around: AbstractContextManager[None] | None = None
        self._functions: AbstractContextManager[None] = nullcontext()
        self._signature = ""
        self._searches_left = _MOST_SEARCHES

    # -- the loop ----------------------------------------------------------------------------------------------

    def __enter__(self) -> MemorySession:
        if self._open:
            raise SessionError("Expected a session to be entered once at a time. Received: a session that is open.")
        self._open = True
        with self._faults.guard("begin", "Nothing is recorded."):
            self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        with self._faults.guard("end", "What was recorded last may be missing."):
            # An iterator that is kept has its step open, whatever its loop was left by; without an error it is none.
            self._leave(self._running, error or StopIteration(), UNKNOWN)
            self._end_session()

    def epochs(self, epochs: int | Iterable[int], initial_epoch: int = 0) -> Iterator[int]:
        """Count epochs.

        Args:
            epochs: How many, or the numbers themselves.
            initial_epoch: Number of the first, where ``epochs`` is a number; a run of the same name is then continued.

        Yields:
            The 0-based number of each epoch.

        Raises:
            SessionError: If the session is not open.
        """
        self._check_open("epochs")
        if isinstance(epochs, (bool, str, bytes)) or not isinstance(epochs, (int, Iterable)):
            raise InvalidTypeError(
                "Expected epochs to be a number of epochs, or the epochs' numbers. "
                f"Received: epochs={epochs!r} (of type {type(epochs).__name__})."
            )
        numbers = range(initial_epoch, epochs) if isinstance(epochs, int) else epochs
        return self._epochs(numbers)

    def steps(self, data: Iterable[Batch], *, stage: str = "train") -> Iterator[Batch]:
        """Make a step of what the loop does with each batch.

        A loop that is left within a batch leaves a row of that batch, in which ``ended`` is False if an exception left
        it, and unknown (NaN) where Python does not tell, as of an iterator that is kept in a variable.

        Args:
            data: A ``tf.data.Dataset``, a generator, or whatever else gives batches.
            stage: ``"train"``, ``"test"`` for validation, or ``"predict"``.

        Yields:
            The batches.

        Raises:
            SessionError: If the session is not open.
            InvalidTypeError: If ``data`` gives no batches.
            InvalidArgumentError: If there is no such stage.
        """
        self._check_open("steps")
        _check_stage(stage)
        if not (hasattr(data, "__iter__") or hasattr(data, "__getitem__")):
            raise InvalidTypeError(
                "Expected data to give batches, as a tf.data.Dataset, a list or a generator does. "
                f"Received: data={data!r} (of type {type(data).__name__})."
            )
        return self._steps(data, stage)

    def step(self, batch: Any = None, *, stage: str = "train") -> AbstractContextManager[None]:
        """Make a step of what is inside of the context.

        Args:
            batch: Its batch, if it is at hand: its tensors are then told apart from others that are alive.
            stage: ``"train"``, ``"test"`` for validation, or ``"predict"``.

        Raises:
            SessionError: If the session is not open.
            InvalidArgumentError: If there is no such stage.

        Example:
            >>> with session.step():              # doctest: +SKIP
            ...     train_step(x, y)
        """
        if not self._open:
            self._check_open("step")
        step = self._step
        if stage != "train":
            _check_stage(stage)
            return self._single(batch, stage)
        step.batch = batch
        return step

    def logs(self) -> dict[str, float]:
        """Memory since the last call, for logs of your own: what ``MemoryWatch(add_to_logs=True)`` adds, in MiB.

        Returns:
            ``memory/device_peak_mib`` (the highest), ``memory/device_in_use_mib`` and ``memory/host_rss_mib`` (the
            newest); without what is unknown. ``memory/partial_device_...`` where not every allocation is counted.
        """
        return self._epoch_logs()

    # -- inside ------------------------------------------------------------------------------------------------

    @property
    def _watched(self) -> Watched:
        return self._given if self._tracing is None else self._tracing.watched

    def _check_open(self, method: str) -> None:
        if not self._open:
            raise SessionError(
                f"Expected {method}() within the session. Received: a session that is not open. "
                "Write: with kerasmemwatch.MemorySession(model) as session: ..."
            )

    def _begin(self) -> None:
        if not self._start() or self._recorder is None:
            return
        self._recorder.abandon_stages()
        self._recorder.begin_stage("train")
        self._stages = [_Stage(_CODES["train"])]
        if self._tracing is not None:
            self._tracing.abandon()
            for model in self._given.models:
                self._tracing.watched.add_model(model)
            self._tracing.begin("train", None, None)
            self._functions = self._tracing.new_functions(lambda: self._running is not None)
            self._functions.__enter__()

    def _end_session(self) -> None:
        functions, self._functions = self._functions, nullcontext()
        functions.__exit__(None, None, None)
        if self._recorder is None:
            return
        if self._tracing is not None:
            self._tracing.end()
        self._list_variables()
        self._recorder.end_stage("train")

    def _epochs(self, numbers: Iterable[int]) -> Iterator[int]:
        for epoch in numbers:
            if self._recorder is not None:
                self._recorder.begin_epoch(epoch, resumed=epoch > 0)
                self._stages = [_Stage(_CODES["train"])]
            yield epoch
            if self._recorder is not None and self._open:
                self._list_variables()
                self._recorder.end_epoch()
                self._print_line(epoch)

    def _print_line(self, epoch: int) -> None:
        if self._options.verbose in ("auto", 0):
            return
        figures = (f"{name}: {value:.1f}" for name, value in self._epoch_logs().items())
        print(f"Epoch {epoch + 1} - {' - '.join(figures)}", flush=True)

    def _steps(self, data: Iterable[Batch], stage: str) -> Iterator[Batch]:
        step = SessionStep(self, consumers(sys._getframe(1)))
        with self._within(stage):
            for batch in data:
                step.batch = batch
                with step:
                    yield batch

    @contextmanager
    def _single(self, batch: Any, stage: str) -> Iterator[None]:
        with self._within(stage):
            self._step.batch = batch
            with self._step:
                yield

    @contextmanager
    def _within(self, stage: str) -> Iterator[None]:
        """Be in a stage; a loop is in training unless it says otherwise."""
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
        """A step begins; one that is under way has ended, as that of an iterator that is kept after a ``break``."""
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
        """A step ends, unless it has already, or an exception leaves it; unknown is which if ``ended`` is NaN."""
        recorder, around = self._recorder, self._around
        if recorder is None or step is None or step is not self._running:
            return
        self._running = self._around = None
        if around is not None:
            around.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
        if error is not None or ended != 1:
            recorder.batch_left(raised=error is None or not is_end_of_data(error), ended=ended)
        if error is not None:
            return
        if ended == 1:
            stage = self._stages[-1]
            stage.batch += 1
            recorder.batch_end(stage.batch, stage.code)
        if around is not None:
            watched = self._watched
            if not watched.models and self._searches_left:
                self._searches_left -= 1
                # The step's functions were made before the session.
                with recorder.faults.guard("models", "Models and variables are unknown. Give the session the model."):
                    watched.find_alive()
            if self._tracing is not None:
                self._batch_ended(self._tracing, recorder)
            self._list_variables()

    def _list_variables(self) -> None:
        """List the variables by layer, unless that was done and there are no others since."""
        recorder, watched = self._recorder, self._watched
        if recorder is None or (signature := watched.signature()) == self._signature:
            return
        with recorder.faults.guard("inventory", "Variables by layer are unknown."):
            variables = watched.inventory()
            self._describe(recorder, variables, layer_memory(variables))
            self._signature = signature


@dataclass(slots=True)
class _Stage:
    """A stage that is under way, and the 0-based number of its newest batch in the epoch."""

    code: int
    batch: int = -1


def _check_stage(stage: Any) -> None:
    if stage not in STAGES:
        raise InvalidArgumentError(
            f"Expected stage to be one of {', '.join(map(repr, STAGES))}. Received: stage={stage!r}."
        )
