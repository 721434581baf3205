"""Reader of a run's directory: the chunks and traced steps in its event files, then the journal's rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from kerasmemwatch.compat.tensorboard import EVENT
from kerasmemwatch.errors import RecordingFormatError, RecordingVersionError
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.rows import Layout, Rows
from kerasmemwatch.records.run import RunInfo
from kerasmemwatch.storage.codecs.run_codec import decode_run
from kerasmemwatch.storage.codecs.step_codec import decode_step
from kerasmemwatch.storage.files.event_file import read_records
from kerasmemwatch.storage.files.file_system import join, read_bytes, walk
from kerasmemwatch.storage.files.journal import JOURNAL_NAME, MAX_JOURNAL_BYTES, read_journal
from kerasmemwatch.storage.run_ending import read_ending
from kerasmemwatch.storage.run_parts import Allowance, decode_chunk, possible_rows
from kerasmemwatch.storage.sinks.tensorboard import FILE_SUFFIX, RUN_TAG, SAMPLES_TAG, STEPS_TAG

__all__ = ["StoredRun", "is_run_dir", "journal_rows", "read_run", "run_dirs"]

# Most digits of a chunk's number; we never write more.
_MAX_DIGITS = 18
# How often to reread a journal that changes while it is read, before torn rows count as damaged.
_READS = 5


@dataclass(frozen=True)
class StoredRun:
    """Contents of a run's directory."""

    run: RunInfo | None = None  # the newest description; `None` if nothing was written yet
    layers: tuple[LayerMemory, ...] = ()  # the model's variables by layer
    chunks: tuple[bytes, ...] = ()  # encoded chunks of rows, in order
    fresh: tuple[Layout, Rows] | None = None  # rows that are only in the journal
    problems: tuple[str, ...] = ()  # what could not be read, in words
    next_index: int = 0  # number of the next chunk to write; higher than the number of chunks if some cannot be read
    steps: tuple[bytes, ...] = ()  # encoded traced steps, in order
    next_step: int = 0  # number of the next step to write, likewise
    ending: str = ""  # `RunInfo.ending`, if the rows were read


def run_dirs(log_dir: str) -> list[str]:
    """Directories at or below ``log_dir`` that hold a run, sorted by name."""
    return sorted(directory for directory, names in walk(log_dir) if _holds_run(names))


def is_run_dir(directory: str) -> bool:
    """Whether a directory holds a run."""
    return _holds_run(next(iter(walk(directory)), ("", []))[1])


def read_run(directory: str, *, rows: bool = True) -> StoredRun:
    """Read a run's directory, even while it is being written or after its process was killed.

    Args:
        rows: Whether to read the rows and traced steps as well as the description.

    Raises:
        RecordingVersionError: If a newer version wrote it.
    """
    names = next(iter(walk(directory)), ("", []))[1]
    problems: list[str] = []
    # The journal first: rows of a chunk that is written in between are then in both, and are counted once.
    fresh = journal_rows(directory, problems) if rows and JOURNAL_NAME in names else None
    allowance = Allowance()
    if fresh is not None:
        allowance.rows(*fresh)
    description: tuple[RunInfo | None, tuple[LayerMemory, ...]] = (None, ())
    chunks: dict[str, bytes] = {}
    steps: dict[str, bytes] = {}
    for name in sorted(filter(_is_ours, names)):
        data = _event_bytes(directory, name, problems)
        allowance.stored(len(data))
        for tag, payload in _payloads(data, name, problems):
            try:
                if tag == RUN_TAG:
                    description = decode_run(payload)
                elif rows and tag.startswith(SAMPLES_TAG):
                    allowance.rows(*decode_chunk(payload))
                    chunks[tag] = payload
                elif rows and tag.startswith(STEPS_TAG):
                    allowance.step(decode_step(payload))
                    steps[tag] = payload
            except RecordingVersionError as error:
                if not tag.startswith(STEPS_TAG):
                    raise
                problems.append(f"{name}: {tag[:80]} cannot be read: {error}")  # the rest is still useful
            except RecordingFormatError as error:
                problems.append(f"{name}: {tag[:80]} cannot be read: {error}")
    return StoredRun(
        *description,
        _ordered(chunks),
        fresh,
        tuple(problems),
        _next_number(chunks),
        _ordered(steps),
        _next_number(steps),
        read_ending(directory) if rows else "",
    )


def _ordered(payloads: dict[str, bytes]) -> tuple[bytes, ...]:
    return tuple(payloads[tag] for tag in sorted(payloads))


def _next_number(tags: Iterable[str]) -> int:
    numbers = [tag.rpartition("/")[2] for tag in tags]
    return max((int(number) for number in numbers if number.isdecimal() and len(number) <= _MAX_DIGITS), default=-1) + 1


def _holds_run(names: list[str]) -> bool:
    # A run killed on a full disk, or with a user's own sink, leaves only a journal.
    return JOURNAL_NAME in names or any(map(_is_ours, names))


def _is_ours(name: str) -> bool:
    return name.endswith(FILE_SUFFIX) and "tfevents" in PurePath(name).name


def _event_bytes(directory: str, name: str, problems: list[str]) -> bytes:
    try:
        return read_bytes(join(directory, name))
    except FileNotFoundError:
        return b""  # a sink has removed an unwritable file since the listing
    except OSError as error:
        problems.append(f"{name} cannot be read: {error}")
        return b""


def _payloads(data: bytes, name: str, problems: list[str]) -> Iterator[tuple[str, bytes]]:
    from google.protobuf.message import DecodeError

    event_class, size = EVENT.get(), 0
    for record in read_records(data):
        size += len(record) + 16
        try:
            event = event_class.FromString(record)
        except DecodeError as error:
            problems.append(f"{name}: an event cannot be read: {error}")
            continue
        for value in event.summary.value:
            if value.tag == RUN_TAG or value.tag.startswith((SAMPLES_TAG, STEPS_TAG)):
                yield value.tag, b"".join(value.tensor.string_val)
    if size != len(data):
        problems.append(f"{name} is cut off or damaged: {len(data) - size} of {len(data)} bytes cannot be read.")


def journal_rows(directory: str, problems: list[str]) -> tuple[Layout, Rows] | None:
    """Rows that are only in a run's journal; ``None`` if there is none, or it cannot be read, which is a problem."""
    last = None
    for _ in range(_READS):
        try:
            data = read_bytes(join(directory, JOURNAL_NAME), MAX_JOURNAL_BYTES)
            if not data:
                return None  # its process has only just started
            layout, rows = read_journal(data)
        except FileNotFoundError:
            return None  # its process has stored its rows and removed it since the listing
        except (OSError, RecordingFormatError) as error:
            problems.append(f"{JOURNAL_NAME} cannot be read: {error}")
            return None
        # A crash of the machine may leave rows that never reached the disk.
        intact = possible_rows(layout, rows)
        if intact.all() or data == last:
            break
        last = data  # if it has changed since, a row was just being written
    if not intact.all():
        problems.append(f"{JOURNAL_NAME} is cut off or damaged: {np.sum(~intact)} of {len(rows)} rows cannot be read.")
    return layout, rows[intact]
