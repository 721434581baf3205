"""``MemorySession``: records a user's own training loop, as ``MemoryWatch`` records a fit."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from os import PathLike
from types import TracebackType
from typing import Any, TypeVar

from kerasmemwatch.attribution.variables.inventory import check_model
from kerasmemwatch.errors import InvalidArgumentError, InvalidTypeError, SessionError
from kerasmemwatch.probes.base import UNKNOWN, Probe
from kerasmemwatch.records.run import STAGES
from kerasmemwatch.storage.sinks.base import Sink
from kerasmemwatch.watch.loop_watcher import LoopWatcher
from kerasmemwatch.watch.options import Options
from kerasmemwatch.watch.session_step import SessionStep, consumers

__all__ = ["MemorySession"]

Batch = TypeVar("Batch")


class MemorySession(LoopWatcher):
    """Records device and host memory of every step of a training loop, and traces some steps.

    Memory within a step is distinguished from memory between two steps. The models and optimizers that the steps use
    are found automatically; a given model is known from the first step on.

    Args:
        model: A Keras model or layer, a ``tf.Module``, or a list of them; ``None`` finds those called in a traced
            step.
        log_dir: Where to write; each session and process writes a run of its own below it. ``None`` writes nothing.
        run_name: Name of the run's directory; by default made from the time.
        tags: Your own words for finding the run.
        sample_every: Record every n-th step; a row then covers all steps since the last.
        reset_peak: Whether to reset the allocator's peak counter at step boundaries.
        trace: Which steps to trace: ``"auto"`` (the second and a later one; on a GPU also the first; another when the
            peak changes for good or is higher), a list of ``step``s, or ``False``.
        detect_leaks: Whether to look for the cause where memory grows, at the ends of epochs and calls. This takes at
            most 1 % of the time or 2 seconds, and runs Python's full collection once; a note says so. ``"raise"``
            raises a ``MemoryGrowthError`` at the end of a session for which a cause was found.
        release_dead_models: Whether to have TensorFlow let go of models as they die; see ``kerasmemwatch.release``.
        add_to_logs: Accepted so that options can be shared with ``MemoryWatch``; a loop has no logs, see ``logs``.
        verbose: Whether ``epochs`` prints a line of memory after each epoch; ``"auto"`` does not.
        probes: What to read, in place of the default probes.
        sinks: Where to write, in place of TensorBoard.
        strict: Whether to raise our own faults instead of logging each once. For tests.

    Raises:
        InvalidTypeError: If an argument has the wrong type (a ``TypeError``).
        InvalidArgumentError: If an argument's value is invalid (a ``ValueError``).
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
        detect_leaks: bool | str = True,
        release_dead_models: bool = False,
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
                release_dead_models,
            )
        )
        models = model if isinstance(model, (list, tuple)) else [] if model is None else [model]
        for each in models:
            check_model(each)
        self._watch_loop(models)
        # Only while open, because it refers back: a closed session must not wait for the garbage collector.
        self._step: SessionStep | None = None

    # -- the loop ----------------------------------------------------------------------------------------------

    def __enter__(self) -> MemorySession:
        if self._open:
            raise SessionError("Expected a session to be entered once at a time. Received: a session that is open.")
        self._open = True
        self._step = SessionStep(self)
        with self._faults.guard("begin", "Nothing is recorded."):
            self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open, self._step = False, None
        with self._faults.guard("end", "What was recorded last may be missing."):
            # A kept iterator leaves its step open, however its loop was left. StopIteration is not an error.
            self._leave(self._running, error or StopIteration(), UNKNOWN)
            # The error that left a loop over ``steps`` is known only here.
            self._tell_death(error)
            self._end()
        if error is None:
            self._raise_leaks()

    def epochs(self, epochs: int | Iterable[int], initial_epoch: int = 0) -> Iterator[int]:
        """Count epochs.

        Args:
            epochs: How many, or the numbers themselves.
            initial_epoch: Number of the first, if ``epochs`` is a number; a run of the same name is then continued.

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
        """Record what the loop does with each batch as one step.

        A loop that is left within a batch still records that batch's row. Its ``ended`` is False if an exception left
        the loop, and unknown (NaN) if Python does not show why, for example if the iterator is kept in a variable.

        Args:
            data: A ``tf.data.Dataset``, a generator or another iterable of batches.
            stage: ``"train"``, ``"test"`` for validation, or ``"predict"``.

        Yields:
            The batches.

        Raises:
            SessionError: If the session is not open.
            InvalidTypeError: If ``data`` is not an iterable of batches.
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
        """Record the block as one step.

        Args:
            batch: Its batch, if available; its tensors are then distinguished from other live ones.
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
        step = self._step or SessionStep(self)
        if stage != "train":
            _check_stage(stage)
            return self._single(step, batch, stage)
        step.batch = batch
        return step

    def logs(self) -> dict[str, float]:
        """Memory since the last call, for your own logs: what ``MemoryWatch(add_to_logs=True)`` adds, in MiB.

        Returns:
            ``memory/device_peak_mib`` (the highest), ``memory/device_in_use_mib`` and ``memory/host_rss_mib`` (the
            newest); unknown ones are omitted. ``memory/partial_device_...`` if not every allocation is counted.
        """
        return self._epoch_logs()

    # -- inside ------------------------------------------------------------------------------------------------

    def _check_open(self, method: str) -> None:
        if not self._open:
            raise SessionError(
                f"Expected {method}() within the session. Received: a session that is not open. "
                "Write: with kerasmemwatch.MemorySession(model) as session: ..."
            )

    def _epochs(self, numbers: Iterable[int]) -> Iterator[int]:
        for epoch in numbers:
            if self._recorder is not None:
                self._recorder.begin_epoch(epoch, resumed=epoch > 0)
                self._train_anew()
            yield epoch
            if self._recorder is not None and self._open:
                self._list_variables()
                self._recorder.end_epoch()
                self._search_leaks()
                self._print_line(epoch)

    def _print_line(self, epoch: int) -> None:
        if self._options.verbose in ("auto", 0):
            return
        figures = (f"{name}: {value:.1f}" for name, value in self._epoch_logs().items())
        print(f"Epoch {epoch + 1} - {' - '.join(figures)}", flush=True)

    def _steps(self, data: Iterable[Batch], stage: str) -> Iterator[Batch]:
        step = SessionStep(self, consumers(sys._getframe(1)))
        recorder = self._recorder if stage == "train" else None
        if recorder is not None:
            self._fills.begin(recorder, data, is_one_pass=True)
        with self._within(stage):
            iterator = iter(data)
            for batch in iterator:
                step.batch = batch
                with step:
                    yield batch
                if recorder is not None and self._fills.is_due(recorder):
                    self._fills.read(recorder, iterator)

    @contextmanager
    def _single(self, step: SessionStep, batch: Any, stage: str) -> Iterator[None]:
        with self._within(stage):
            step.batch = batch
            with step:
                yield


def _check_stage(stage: Any) -> None:
    if stage not in STAGES:
        raise InvalidArgumentError(
            f"Expected stage to be one of {', '.join(map(repr, STAGES))}. Received: stage={stage!r}."
        )
