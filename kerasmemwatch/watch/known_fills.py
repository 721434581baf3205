"""Notes what is known to fill while a run is recorded: memory that rises by that is no growth."""

from __future__ import annotations

from typing import Any

from kerasmemwatch.attribution.events.chunk_addresses import chunk_bytes
from kerasmemwatch.attribution.live.batch_spec import leaves
from kerasmemwatch.attribution.live.dataset_caches import cache_sizes, cached_bytes
from kerasmemwatch.attribution.live.live_buffers import tensor_bytes
from kerasmemwatch.leaks.verdicts.filling import CacheReadings
from kerasmemwatch.sampling.recorder import Recorder

__all__ = ["KnownFills"]

_LOST = "A cache that fills is not known to be one."


class KnownFills:
    """Notes the caches of datasets, what they hold as they fill, and what a ``predict`` keeps until it ends."""

    def __init__(self) -> None:
        self._caches = CacheReadings()

    def begin(self, recorder: Recorder, dataset: Any) -> None:
        """A pass over a dataset begins that may fill its caches."""
        with recorder.faults.guard("caches", _LOST):
            sizes = cache_sizes(dataset)
            self._caches.begin(recorder.step, sizes)
            if sizes:
                recorder.configure(dataset_caches_bytes=list(sizes))

    def is_due(self, recorder: Recorder) -> bool:
        """Whether it is worth reading what the caches hold."""
        return self._caches.is_due(recorder.step)

    def read(self, recorder: Recorder, iterator: Any) -> None:
        """Read what the caches hold.

        Args:
            iterator: TensorFlow's iterator that fills them.
        """
        with recorder.faults.guard("caches", _LOST):
            self._caches.add(recorder.step, cached_bytes(iterator))
            steps, held = (list(part) for part in zip(*self._caches.readings, strict=True))
            recorder.configure(dataset_caches_read_steps=steps, dataset_caches_held_bytes=held)

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
