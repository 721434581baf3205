"""A recording is a value: what was recorded of one run. Read it from disk with ``load``; no TensorFlow needed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from os import PathLike

from kerasmemwatch.analysis.merge_workers import absences, gather, group_name, merge
from kerasmemwatch.errors import RecordingNotFoundError, RecordingVersionError
from kerasmemwatch.records.recorded import Recorded
from kerasmemwatch.records.rows import to_samples
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.reports.notebook_value import NotebookValue, extent
from kerasmemwatch.reports.report import Report, make_report
from kerasmemwatch.storage.codecs.row_codec import decode_rows
from kerasmemwatch.storage.codecs.step_codec import decode_step
from kerasmemwatch.storage.files.file_system import check_working_dir, is_remote, join
from kerasmemwatch.storage.run_reader import StoredRun, is_run_dir, read_run, run_dirs

__all__ = ["Recording", "load", "runs", "unreadable_runs"]


@dataclass(frozen=True, eq=False)
class Recording(Recorded, NotebookValue):
    """What was recorded of one run.

    Attributes:
        run: Name, tags, devices, versions, configuration, when it began, what could not be measured.
        samples: The rows, by column.
        layers: The model's variables by layer.
        steps: The traced steps, each with its timeline.
        workers: Of workers that trained together, each one's own recording; empty for an ordinary run.
    """

    workers: tuple[Recording, ...] = ()

    @cached_property
    def report(self) -> Report:
        """What the recording says, judged; ``print`` it."""
        workers = tuple((worker.run, worker.samples) for worker in self.workers)
        return make_report(self.run, self.samples, self.layers, self.steps, workers)

    def __repr__(self) -> str:
        workers = f" of {len(self.workers)} workers" if self.workers else ""
        return f"<Recording of run {self.run.name!r}: {extent(self.samples.num_samples, len(self.steps))}{workers}>"


def runs(log_dir: str | PathLike[str]) -> list[str]:
    """Names of the runs under a log dir, oldest first.

    Args:
        log_dir: The directory given to ``MemoryWatch``, or one above it; names are then relative paths.

    Raises:
        RecordingNotFoundError: If there is no such directory.
        LogDirError: If it is relative to a working directory that was deleted.

    Example:
        >>> import tempfile
        >>> runs(tempfile.mkdtemp())
        []
    """
    top = os.fspath(log_dir)
    return [name for _, name in sorted((about.created, _name(top, path)) for path, about in _known(top)[0].items())]


def unreadable_runs(log_dir: str | PathLike[str]) -> dict[str, str]:
    """Runs under a log dir whose description cannot be read, and why: the others are not affected.

    Args:
        log_dir: The directory given to ``MemoryWatch``, or one above it.

    Raises:
        RecordingNotFoundError: If there is no such directory.
    """
    top = os.fspath(log_dir)
    return {_name(top, path): problem for path, problem in _known(top)[1].items()}


def load(log_dir: str | PathLike[str], run: str | None = None) -> Recording:
    """Read a recording from disk, also while it is being written or after its process was killed.

    Workers that train together, as under ``tf.distribute.MultiWorkerMirroredStrategy``, each write a run of their own,
    ``mine-worker-0``, ``mine-worker-1``, ... If the newest run is one of those, all are read as one recording, whose
    ``workers`` are theirs; and so they are by what their names have in common, ``run="mine"``.

    Args:
        log_dir: The directory given to ``MemoryWatch``, or a run's own.
        run: Name of the run, or of several workers'; the newest by the time it began if ``None``.

    Returns:
        The recording, up to the last sampled row.

    Raises:
        RecordingNotFoundError: If there is no recording, or none of that name.
        RecordingFormatError: If it cannot be read; ``RecordingVersionError`` if a newer version wrote it.
        LogDirError: If ``log_dir`` is relative to a working directory that was deleted.

    Example:
        >>> recording = load("logs")                       # doctest: +SKIP
        >>> recording.samples["device_peak_bytes"].max()   # doctest: +SKIP
        83886080
    """
    top = os.fspath(log_dir)
    check_working_dir(top)
    if run is not None:
        path = join(top, run)
        inside = is_remote(top) or (
            "\0" not in run and os.path.realpath(path).startswith(os.path.realpath(top) + os.sep)
        )
        if inside and is_run_dir(path):
            return _read(path, run)
        known, problems = _known(top)
        workers = [path for path, about in known.items() if about.worker and _group(top, path, about) == run]
        if not inside or not workers:
            raise RecordingNotFoundError(
                f"Expected the name of a run under {top!r}: {', '.join(map(repr, runs(top))) or 'there are none'}. "
                f"Received: run={run!r}."
            )
        return _with_workers(top, _newest(workers, known), known)
    known, problems = _known(top)
    if not known:
        raise RecordingNotFoundError(
            f"Expected a recording under {top!r}. Received: log_dir={top!r}, where there is none. "
            "Record one with model.fit(..., callbacks=[kerasmemwatch.MemoryWatch(log_dir)])."
        )
    newest = _newest(list(known), known)
    recording = _with_workers(top, newest, known)
    passed_over = [
        f"The run {_name(top, path)!r} may be newer. When it began cannot be read: {problem}"
        for path, problem in problems.items()
        if path != newest
    ]
    return replace(recording, run=replace(recording.run, notes=(*recording.run.notes, *passed_over)))


def _existing(top: str) -> list[str]:
    check_working_dir(top)
    if not is_remote(top) and not os.path.isdir(top):
        raise RecordingNotFoundError(
            f"Expected a directory of recordings. Received: log_dir={top!r}, which is no directory."
        )
    return run_dirs(top)


def _read(path: str, name: str) -> Recording:
    try:
        return _recording(read_run(path), name)
    except RecordingVersionError as error:
        raise RecordingVersionError(f"The run {name!r} cannot be read. {error}") from error


def _recording(stored: StoredRun, name: str) -> Recording:
    parts = [decode_rows(chunk) for chunk in stored.chunks]
    if stored.fresh is not None:
        parts.append(stored.fresh)
    run = stored.run or RunInfo(name=name, created=math.nan)
    run = replace(run, notes=(*run.notes, *stored.problems), ending=stored.ending)
    return Recording(run, to_samples(parts), stored.layers, tuple(map(decode_step, stored.steps)))


def _with_workers(top: str, path: str, known: Mapping[str, RunInfo]) -> Recording:
    """A run, and if it is a worker's, those of the others that trained together with it."""

    def read_other(path: str) -> Recording:
        try:
            return _read(path, _name(top, path))
        except RecordingVersionError as error:  # of its rows: the description was read
            return _recording(StoredRun(known[path], problems=(str(error),)), _name(top, path))

    chosen = _read(path, _name(top, path))
    others = ((about, partial(read_other, other)) for other, about in known.items() if other != path)
    if chosen.run.worker is None:
        return chosen
    workers, left_out = gather(chosen, others)
    whole = Recording(**vars(merge(workers)), workers=workers) if len(workers) > 1 else chosen
    return replace(whole, run=replace(whole.run, notes=(*whole.run.notes, *absences(workers, left_out))))


def _newest(paths: list[str], known: Mapping[str, RunInfo]) -> str:
    return max(paths, key=lambda path: (known[path].created, path))


def _known(top: str) -> tuple[dict[str, RunInfo], dict[str, str]]:
    """What describes each run, by path; and of those that do not tell, why: they are taken to be the oldest."""
    known, problems = {}, {}
    for path in _existing(top):
        try:
            stored = read_run(path, rows=False)
        except RecordingVersionError as error:
            # The newest, then: loading it says so, unless another run is named.
            known[path], problems[path] = RunInfo("", math.inf), str(error)
            continue
        known[path] = stored.run or RunInfo("", 0.0)
        if math.isnan(known[path].created):
            known[path] = replace(known[path], created=0.0)
        if stored.run is None and stored.problems:
            problems[path] = " ".join(stored.problems)
    return known, problems


def _group(top: str, path: str, about: RunInfo) -> str:
    return group_name(replace(about, name=_name(top, path)))


def _name(top: str, path: str) -> str:
    if is_remote(top):
        return path.removeprefix(top.rstrip("/") + "/").rstrip("/")
    relative = os.path.relpath(path, top)
    return os.path.basename(os.path.abspath(top)) if relative == "." else relative
