"""Recordings as TensorBoard's data provider gives them: read once, kept while nothing is added. Data only, no HTTP."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from kerasmemwatch.compat.tensorboard import RUN_TAG_FILTER
from kerasmemwatch.errors import MemWatchError, RecordingFormatError, RecordingNotFoundError
from kerasmemwatch.recording import Recording
from kerasmemwatch.records.ending import RUNNING
from kerasmemwatch.records.rows import to_samples
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.storage.codecs.row_codec import PLUGIN_NAME
from kerasmemwatch.storage.codecs.run_codec import decode_run
from kerasmemwatch.storage.codecs.step_codec import decode_step
from kerasmemwatch.storage.files.file_system import join
from kerasmemwatch.storage.run_ending import read_ending
from kerasmemwatch.storage.run_parts import Allowance, decode_chunk
from kerasmemwatch.storage.run_reader import journal_rows
from kerasmemwatch.storage.sinks.tensorboard import RUN_TAG, SAMPLES_TAG, STEPS_TAG

__all__ = ["Queries", "StoredTags"]

Value = TypeVar("Value")
# Chunks and steps are kept decoded, recordings put together: a long run has some hundred chunks.
_MAX_DECODED, _MAX_RECORDINGS = 4096, 16


@dataclass(frozen=True)
class StoredTags:
    """What the data provider lists of one run."""

    run: str  # its name
    # Each tag of ours, with the step and the time of its newest event: they change when it is written again.
    tags: Mapping[str, tuple[int, float]]

    @property
    def key(self) -> Hashable:
        """Changes when something is added."""
        return self.run, frozenset(self.tags.items())


class Queries:
    """Reads recordings through a data provider.

    Args:
        log_dir: Where TensorBoard reads them; ``""`` if that is not one directory. How a run ended, and the newest rows
            of a killed one, are known only there.
    """

    def __init__(self, provider: Any, log_dir: str = "") -> None:
        self._provider, self._filter, self._log_dir = provider, RUN_TAG_FILTER.get(), log_dir
        self._decoded = _Newest(_MAX_DECODED)
        self._recordings = _Newest(_MAX_RECORDINGS)

    def stored(self, context: Any, experiment: str) -> dict[str, StoredTags]:
        """What there is of each run that has a recording, by name."""
        listed = self._provider.list_tensors(context, experiment_id=experiment, plugin_name=PLUGIN_NAME)
        return {
            run: StoredTags(run, {tag: (series.max_step, series.max_wall_time) for tag, series in tags.items()})
            for run, tags in listed.items()
            if any(tag == RUN_TAG or tag.startswith((SAMPLES_TAG, STEPS_TAG)) for tag in tags)
        }

    def answer(
        self, context: Any, experiment: str, runs: Sequence[str], make: Callable[[dict[str, Recording]], Value]
    ) -> Value:
        """What a function makes of the recordings of some runs, up to what their event files hold by now.

        Args:
            make: Takes the recordings, by name.

        Raises:
            RecordingNotFoundError: If there is no run of a name, or it has no recording.
            RecordingFormatError: If its description is damaged; ``RecordingVersionError`` if a newer version wrote it.
        """
        stored = self.stored(context, experiment)
        for run in runs:
            if run not in stored:
                names = ", ".join(map(repr, sorted(stored))) or "there is none"
                raise RecordingNotFoundError(
                    f"Expected the name of a run with a recording: {names}. Received: run={run!r}."
                )
        return make({run: self._recording(context, experiment, stored[run]) for run in runs})

    def created(self, context: Any, experiment: str, stored: StoredTags) -> float:
        """UNIX time of a run's first sample.

        Raises:
            RecordingFormatError: If its description is missing or damaged.
        """
        run, _ = self._description(context, experiment, stored)
        return float(run.created)

    def _description(self, context: Any, experiment: str, stored: StoredTags) -> tuple[RunInfo, Any]:
        if RUN_TAG not in stored.tags:
            raise RecordingFormatError(
                f"Expected the tag {RUN_TAG!r} in run {stored.run!r}. Received: a run without it."
            )

        def read() -> tuple[RunInfo, Any]:
            payload = self._payloads(context, experiment, stored.run, [RUN_TAG]).get(RUN_TAG)
            if payload is None:
                raise RecordingFormatError(f"Expected data of the tag {RUN_TAG!r}. Received: none.")
            return decode_run(payload)

        return self._decoded.get((experiment, stored.run, RUN_TAG, stored.tags[RUN_TAG]), read)

    def _recording(self, context: Any, experiment: str, stored: StoredTags) -> Recording:
        last = self._recordings.last((experiment, stored.run))
        directory = join(self._log_dir, stored.run) if self._log_dir else ""
        key = stored.key, read_ending(directory) if directory else ""
        if last is None or last[0] != key:
            try:
                last = key, self._read(context, experiment, stored, directory, key[1])
            except RecordingFormatError as error:
                raise type(error)(f"The run {stored.run!r} cannot be read. {error}") from error
            self._recordings.put((experiment, stored.run), last)
        recording: Recording = last[1]
        return recording

    def _read(self, context: Any, experiment: str, stored: StoredTags, directory: str, ending: str) -> Recording:
        run, layers = self._description(context, experiment, stored)
        keys = {tag: (experiment, stored.run, tag, stamp) for tag, stamp in stored.tags.items() if tag != RUN_TAG}
        missing = [tag for tag, key in keys.items() if key not in self._decoded]
        payloads = self._payloads(context, experiment, stored.run, missing)
        problems: list[str] = []
        allowance = Allowance()

        def decoded(prefix: str, decode: Callable[[bytes], Value], take: Callable[[Value], None]) -> Iterator[Value]:
            for tag in sorted(tag for tag in keys if tag.startswith(prefix)):
                try:
                    kept = self._decoded.last(keys[tag])
                    part, stored_bytes = kept or (decode(payloads[tag]), len(payloads[tag]))
                    allowance.stored(stored_bytes)
                    take(part)
                    self._decoded.put(keys[tag], (part, stored_bytes))
                    yield part
                except (MemWatchError, KeyError) as error:
                    problems.append(f"{tag[:80]} cannot be read: {error}")

        parts = list(decoded(SAMPLES_TAG, decode_chunk, lambda part: allowance.rows(*part)))
        if ending not in ("", RUNNING) and (newest := journal_rows(directory, problems)) is not None:
            allowance.rows(*newest)
            parts.append(newest)
        steps = tuple(decoded(STEPS_TAG, decode_step, allowance.step))
        run = replace(run, notes=(*run.notes, *problems), ending=ending)
        return Recording(run, to_samples(parts), layers, steps)

    def _payloads(self, context: Any, experiment: str, run: str, tags: Sequence[str]) -> dict[str, bytes]:
        if not tags:
            return {}
        found = self._provider.read_tensors(
            context,
            experiment_id=experiment,
            plugin_name=PLUGIN_NAME,
            downsample=1,  # the newest
            run_tag_filter=self._filter(runs=[run], tags=list(tags)),
        )
        return {tag: bytes(data[-1].numpy.item()) for tag, data in found.get(run, {}).items() if data}


class _Newest:
    """Keeps what was asked for last. Threads may ask at once; then a value may be made twice."""

    def __init__(self, most: int) -> None:
        self._most, self._values = most, OrderedDict[Hashable, Any]()
        self._lock = threading.Lock()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def last(self, key: Hashable) -> Any:
        """What was kept; ``None`` if nothing is."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        kept: Value | None = self.last(key)
        if kept is None:
            kept = make()
            self.put(key, kept)
        return kept
