"""Notes what is known to fill while a run is recorded: memory that rises by that is no growth."""

from __future__ import annotations

from typing import Any

from kerasmemwatch.attribution.events.chunk_addresses import chunk_bytes
from kerasmemwatch.attribution.live.batch_spec import leaves
from kerasmemwatch.attribution.live.dataset_caches import cache_sizes, cached_bytes
from kerasmemwatch.attribution.live.live_buffers import tensor_bytes
from kerasmemwatch.attribution.live.shuffle_buffers import shuffle_buffer
from kerasmemwatch.leaks.verdicts.filling import FEWEST_SHUFFLED, CacheReadings
from kerasmemwatch.sampling.recorder import Recorder

__all__ = ["KnownFills"]

_LOST = "A cache that fills is not known to be one."


class KnownFills:
    """Notes what datasets' caches hold as they fill, shuffle buffers, and what a ``predict`` keeps until it ends."""

    def __init__(self) -> None:
        self._caches = CacheReadings()
        self._since_step: int | None = None
        self._has_noted_shuffle = False

    def begin(self, recorder: Recorder, dataset: Any, *, is_one_pass: bool) -> None:
        """A pass over a dataset begins that may fill its caches.

        Args:
            is_one_pass: Whether it may go on over several epochs.
        """
        self._since_step = recorder.step if is_one_pass else None
        with recorder.faults.guard("caches", _LOST):
            if self._has_noted_shuffle:
                recorder.configure(dataset_shuffle_bytes=None)
            sizes = cache_sizes(dataset)
            self._caches.begin(recorder.step, sizes)
            if sizes:
                recorder.configure(dataset_caches_bytes=list(sizes))

    def is_due(self, recorder: Recorder) -> bool:
        """Whether it is worth reading what caches and shuffle buffers hold."""
        return self._caches.is_due(recorder.step) or self._is_shuffle_due(recorder.step)

    def read(self, recorder: Recorder, iterator: Any) -> None:
        """Read what is due of what caches and shuffle buffers hold.

        Args:
            iterator: TensorFlow's iterator that fills them.
        """
        if self._is_shuffle_due(recorder.step):
            self._read_shuffle(recorder, iterator)
        if not self._caches.is_due(recorder.step):
            return
        with recorder.faults.guard("caches", _LOST):
            self._caches.add(recorder.step, cached_bytes(iterator))
            steps, held = (list(part) for part in zip(*self._caches.readings, strict=True))
            recorder.configure(dataset_caches_read_steps=steps, dataset_caches_held_bytes=held)

    def _is_shuffle_due(self, step: int) -> bool:
        return self._since_step is not None and step >= self._since_step + FEWEST_SHUFFLED

    def _read_shuffle(self, recorder: Recorder, iterator: Any) -> None:
        since_step, self._since_step = self._since_step, None
        with recorder.faults.guard("shuffle", "A shuffle buffer whose elements change is not known to be one."):
            found = shuffle_buffer(iterator)
            if found is not None:
                self._has_noted_shuffle = True
                num_bytes, num_steps = found
                recorder.configure(
                    dataset_shuffle_bytes=num_bytes,
                    dataset_shuffle_steps=num_steps,
                    dataset_shuffle_since_step=since_step,
                )

    def note_results(self, recorder: Recorder, results: Any, num_steps: int) -> None:
        """Note what a predict keeps of each step.

        Args:
            results: Those of an execution, in any structure: tensors, or NumPy's copies of them.
            num_steps: How many steps it has.
        """
        with recorder.faults.guard("results", "What a predict keeps is not known."):
            sizes = [getattr(each, "nbytes", 0) or tensor_bytes(each) for each in leaves(results)]
            if all(sizes):
                recorder.configure(predict_results_bytes=sum(map(chunk_bytes, sizes)) // num_steps)
