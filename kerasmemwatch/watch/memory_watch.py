"""``MemoryWatch``: records ``fit``, ``evaluate`` and ``predict``. A thin adapter from Keras to the recorder."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

from kerasmemwatch.compat.keras import INITIAL_EPOCH
from kerasmemwatch.probes.base import Probe
from kerasmemwatch.records.run import STAGES
from kerasmemwatch.storage.sinks.base import Sink
from kerasmemwatch.watch.fit_watcher import FitWatcher
from kerasmemwatch.watch.options import Options
from kerasmemwatch.watch.progress_bar import show_beside_loss

__all__ = ["MemoryWatch"]

_TRAIN, _TEST, _PREDICT = range(len(STAGES))


class MemoryWatch(FitWatcher):
    """Records device and host memory of every batch, exactly and at almost no cost.

    Put it first in the list of callbacks: later callbacks' allocations are then distinguished from the batch's, and
    they see what ``add_to_logs`` adds. One watch may serve many fits; they continue one recording.

    Args:
        log_dir: Where to write; each watch and process writes a run of its own below it. ``None`` writes nothing.
            May be remote (``gs://...``) if TensorFlow can write there.
        run_name: Name of the run's directory; by default made from the time. With
            ``keras.callbacks.BackupAndRestore``, or a fit that begins at a later epoch, a run of that name is
            continued, unless another process is recording it; otherwise a number is appended to a name that is taken.
            If several workers train together (``TF_CONFIG``), each appends its own ``-worker-0``, ``-worker-1``, so
            all may use the same name; ``load(log_dir, run_name)`` reads them as one.
        tags: Your own words for finding the run.
        sample_every: Record every n-th batch; a row then covers all batches since the last.
        reset_peak: Whether to reset the allocator's peak counter at batch boundaries, which gives each batch's
            own peak. ``False`` leaves the counter to you; peaks are then run maxima.
        trace: Steps in which to record every allocation with its layer: ``"auto"``, a list of ``step``s, or ``False``
            for none. TensorFlow only. ``"auto"`` traces the second and a later step; on a GPU also the first; another
            when the peak changes for good; and the next of its kind if a step, or a gap between two, was higher than
            all of these: at most six in a fit. If equivalent fits were traced in this process, their steps may be
            shown instead, and are labelled so.
        detect_leaks: Whether to look for the cause where memory grows, at the ends of epochs and calls. This takes at
            most 1 % of the time or 2 seconds, and runs Python's full collection once; a note says so. ``"raise"``
            raises a ``MemoryGrowthError`` at the end of a fit, evaluate or predict for which a cause was found.
        release_dead_models: Whether to have TensorFlow let go of models as they die; see ``kerasmemwatch.release``. A
            fit of a model that is new to the watch then begins with a garbage collection.
        add_to_logs: Whether to add ``memory/device_peak_mib`` (the epoch's highest, also between batches),
            ``memory/device_in_use_mib`` and ``memory/host_rss_mib`` (at its end) to the epoch's logs, for ``History``
            and others; ``memory/partial_device_...`` where not every allocation is counted.
        verbose: Whether the epoch's printed line shows them beside the loss; ``"auto"`` follows the fit's ``verbose``.
        probes: What to read, in place of the default probes; see ``kerasmemwatch.probes.base.Probe``.
        sinks: Where to write, in place of TensorBoard; see ``kerasmemwatch.storage.sinks.base.Sink``.
        strict: Whether to raise our own faults instead of logging each once. For tests.

    Raises:
        InvalidTypeError: If an argument has the wrong type (a ``TypeError``).
        InvalidArgumentError: If an argument's value is invalid (a ``ValueError``).
        LogDirError: If ``log_dir`` is a file or not writable (an ``OSError``).

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model.compile("sgd", "mse")
        >>> watch = MemoryWatch(log_dir=None)
        >>> history = model.fit(np.ones((64, 8)), np.ones((64, 4)), verbose=0, callbacks=[watch])
        >>> watch.recording.samples["train_step"].tolist()
        [1, 2]
        >>> watch.report.weights_bytes
        144
    """

    # On JAX and torch, Keras waits for the device after every batch unless all callbacks are async-safe.
    async_safe = True

    def __init__(
        self,
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
        super().__init__()
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
        self._watch_fits()
        self._last_batch = sys.maxsize

    # -- Keras' hooks ------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """A fit begins."""
        # Under steps_per_execution, Keras numbers an epoch's last execution as if it were a full one.
        self._last_batch = ((self.params or {}).get("steps") or sys.maxsize) - 1
        if self._begin("train") and self._shows_memory():
            with self._faults.guard("epoch line", "It does not show memory."):
                show_beside_loss(self, self._epoch_logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """A fit ends."""
        self._end("train")

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """An evaluate begins, perhaps within a fit."""
        self._begin("test")

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """An evaluate ends."""
        self._end("test")

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """A predict begins."""
        self._begin("predict")

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        """A predict ends."""
        self._end("predict")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """An epoch of a fit begins."""
        if self._recorder is not None:
            restored = INITIAL_EPOCH.of(self._model) is not None  # set by BackupAndRestore
            self._recorder.begin_epoch(epoch, resumed=restored or epoch > 0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """An epoch ends, its validation included."""
        if self._recorder is not None:
            self._recorder.end_epoch()
            self._read_caches()
            self._search_leaks(self._model)
            if self._options.add_to_logs and logs is not None:
                logs.update(self._epoch_logs())

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """A batch (an execution of several under ``steps_per_execution``) begins."""
        if self._recorder is not None:
            tracing = self._tracing
            if tracing is not None:
                tracing.count += 1
                if tracing.count == tracing.look_at:
                    self._look()
            self._recorder.batch_begin()

    on_test_batch_begin = on_predict_batch_begin = on_train_batch_begin

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """A batch ends."""
        if self._recorder is not None:
            self._recorder.batch_end(batch if batch < self._last_batch else self._last_batch, _TRAIN)
            if self._attention:
                self._after_batch()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """A batch of an evaluate ends."""
        if self._recorder is not None:
            self._recorder.batch_end(batch, _TEST)
            if self._attention:
                self._after_batch()

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """A batch of a predict ends."""
        if self._recorder is not None:
            self._recorder.batch_end(batch, _PREDICT)
            if self._attention:
                self._after_batch(logs)

    @contextmanager
    def batch(self, model: Any, stage: str = "train") -> Iterator[None]:
        """Record one batch that runs outside of a fit, for example ``train_on_batch``.

        Args:
            model: The Keras model that runs it.
            stage: ``"train"``, ``"test"`` or ``"predict"``.

        Example:
            >>> with watch.batch(model):                   # doctest: +SKIP
            ...     model.train_on_batch(x, y)
        """
        self.set_model(model)
        begun = (self._begun_anew or not self.active) and self._begin(stage, single=True)
        recorder = self._recorder if begun else None
        if recorder is not None:
            getattr(self, f"on_{stage}_batch_begin")(0)
        error: BaseException | None = None
        try:
            yield
            if recorder is not None:
                getattr(self, f"on_{stage}_batch_end")(0)
        except BaseException as raised:
            error = raised
            raise
        finally:
            if recorder is not None:
                self._loop_left(error)
                if self._tracing is not None:
                    self._tracing.end()
                self._search_leaks(model)
                recorder.end_stage(settle=False)

    # -- inside ------------------------------------------------------------------------------------------------

    def _shows_memory(self) -> bool:
        verbose = self._options.verbose
        if self._options.add_to_logs:
            return False  # the progress bar shows them already
        return bool((self.params or {}).get("verbose", 0)) if verbose == "auto" else bool(verbose)
