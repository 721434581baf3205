"""Event files against TensorBoard's own reader (the pure Python one, so that TensorFlow stays out)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeClock, FakeProbe, device_probe, recorder_on_disk, write_run
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub import errors, pywrap_tensorflow

from kerasmemwatch.storage.codecs.row_codec import decode_rows
from kerasmemwatch.storage.codecs.run_codec import decode_run
from kerasmemwatch.storage.files import file_system
from kerasmemwatch.storage.files.event_file import EventFile, frame, read_records
from kerasmemwatch.storage.sinks.tensorboard import RUN_TAG, SAMPLES_TAG, SCALARS
from kerasmemwatch.units import MIB


def events(path: Path) -> Iterator[event_pb2.Event]:
    """What TensorBoard reads; it checks both checksums of every record."""
    reader = pywrap_tensorflow.PyRecordReader_New(str(path))
    while True:
        try:
            reader.GetNext()
        except errors.OutOfRangeError:
            return
        yield event_pb2.Event.FromString(reader.record())


def event_files(run_dir: Path) -> list[Path]:
    return sorted(run_dir.glob("*tfevents*"))


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 100])
def test_checksums_are_tensorboards(data: bytes) -> None:
    framed = frame(data)
    assert framed[8:12] == pywrap_tensorflow.masked_crc32c(framed[:8]).to_bytes(4, "little")
    assert framed[-4:] == pywrap_tensorflow.masked_crc32c(data).to_bytes(4, "little")


def test_records_come_back() -> None:
    records = [b"", b"one", bytes(10_000), b"\xff"]
    assert list(read_records(b"".join(map(frame, records)))) == records


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "events"
    file = EventFile(str(path), 12.5)
    for step in range(3):
        file.write([event_pb2.Event(step=step), event_pb2.Event(step=step + 100)])
    file.close()
    first, *rest = events(path)
    assert first.file_version == "brain.Event:2" and first.wall_time == 12.5
    assert [event.step for event in rest] == [0, 100, 1, 101, 2, 102]


def test_a_file_that_rests_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "events"
    file = EventFile(str(path), 12.5)
    for step in range(3):
        file.write([event_pb2.Event(step=step)])
        file.rest()
        file.rest()
    with path.open("ab") as other:
        other.write(b"a piece that could not be taken back")
    file.write([event_pb2.Event(step=3)])
    file.close()
    _, *rest = events(path)
    assert [event.step for event in rest] == [0, 1, 2, 3]


def test_a_file_that_was_removed_while_it_rested_is_told(tmp_path: Path) -> None:
    file = EventFile(str(tmp_path / "events"), 12.5)
    file.rest()
    (tmp_path / "events").unlink()
    with pytest.raises(FileNotFoundError):
        file.write([event_pb2.Event(step=1)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_cut_off_tail_costs_the_last_record_only(cut: int) -> None:
    data = frame(b"one") + frame(b"two") + frame(b"three"[:3])
    assert list(read_records(data[:-cut])) == [b"one", b"two"]


@pytest.mark.parametrize("position", range(len(frame(b"two"))))
def test_a_flipped_bit_gives_no_wrong_record(position: int) -> None:
    middle = bytearray(frame(b"two"))
    middle[position] ^= 4
    found = list(read_records(frame(b"one") + bytes(middle) + frame(b"three")))
    # Where the length can be believed, what follows is read, too.
    assert found == ([b"one"] if position < 12 else [b"one", b"three"])


def test_zeros_at_the_end_are_no_records() -> None:
    assert list(read_records(frame(b"one") + bytes(4096))) == [b"one"]


def test_a_huge_length_asks_for_no_memory() -> None:
    header = (2**63).to_bytes(8, "little")
    crc = pywrap_tensorflow.masked_crc32c(header).to_bytes(4, "little")
    assert list(read_records(frame(b"one") + header + crc + bytes(100))) == [b"one"]


def test_a_file_that_cannot_be_begun_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file_system._LocalFile, "append", full)
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            EventFile(str(tmp_path / "events"), 0.0)
    assert list(tmp_path.iterdir()) == []


# -- the sink's file -------------------------------------------------------------------------------------------


def test_a_run_is_one_file_that_tensorboard_takes_for_its_own(tmp_path: Path) -> None:
    write_run(tmp_path, batches=20)
    [path] = event_files(tmp_path / "run")
    assert "tfevents" in path.name
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == [path.name]


def test_chunks_and_descriptions_are_tensors_of_our_plugin(tmp_path: Path) -> None:
    write_run(tmp_path, batches=20)
    [path] = event_files(tmp_path / "run")
    values = {value.tag: value for event in events(path) for value in event.summary.value}
    _, rows = decode_rows(values[f"{SAMPLES_TAG}000000"].tensor.string_val[0])
    assert rows[:, 0].tolist() == list(range(1, 21))
    assert decode_run(values[RUN_TAG].tensor.string_val[0])[0].name == "run"
    for tag in (RUN_TAG, f"{SAMPLES_TAG}000000"):
        assert values[tag].metadata.plugin_data.plugin_name == "kerasmemwatch"


def scalars(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for path in event_files(run_dir):
        for event in events(path):
            for value in event.summary.value:
                if value.tag.startswith("memory/"):
                    found.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    return found


def test_scalars_are_mebibytes_by_step(tmp_path: Path) -> None:
    probes = (device_probe(lambda n: (n * MIB, 2 * n * MIB, 3 * n * MIB)), FakeProbe(fast=lambda n: [4.0 * n * MIB]))
    write_run(tmp_path, batches=3, probes=probes)
    assert scalars(tmp_path / "run") == {
        "memory/device_in_use_mib": [(1, 1), (2, 2), (3, 3)],
        "memory/device_peak_mib": [(1, 2), (2, 4), (3, 6)],
        "memory/device_between_peak_mib": [(1, 3), (2, 6), (3, 9)],
        "memory/host_rss_mib": [(1, 4), (2, 8), (3, 12)],
    }
    assert {tag for tag, _ in SCALARS.values()} == set(scalars(tmp_path / "run"))


def test_several_devices_have_a_scalar_each(tmp_path: Path) -> None:
    probe = device_probe(lambda _: [MIB * value for value in (1.0, 2, 3, 4, 5, 6)], names=("GPU:0", "GPU:1"))
    write_run(tmp_path, batches=1, probes=(probe,))
    assert scalars(tmp_path / "run") == {
        "memory/device_in_use_mib/GPU_0": [(1, 1)],
        "memory/device_in_use_mib/GPU_1": [(1, 2)],
        "memory/device_peak_mib/GPU_0": [(1, 3)],
        "memory/device_peak_mib/GPU_1": [(1, 4)],
        "memory/device_between_peak_mib/GPU_0": [(1, 5)],
        "memory/device_between_peak_mib/GPU_1": [(1, 6)],
    }


def test_a_partial_count_has_tags_of_its_own(tmp_path: Path) -> None:
    probe = device_probe(lambda _: [MIB * value for value in (1.0, 2, 3, 4, 5, 6)], names=("GPU:0", "CPU:0"))
    probe.facts["devices"][1] |= {"counting": "partial", "counted_from_bytes": 262_144}  # type: ignore[index]
    write_run(tmp_path, batches=1, probes=(probe,))
    assert set(scalars(tmp_path / "run")) == {
        f"memory/{kind}device_{what}_mib/{device}"
        for kind, device in (("", "GPU_0"), ("partial_", "CPU_0"))
        for what in ("in_use", "peak", "between_peak")
    }


def test_what_is_unknown_has_no_point(tmp_path: Path) -> None:
    probe = FakeProbe(fast=lambda n: [float("nan") if n == 2 else MIB])
    write_run(tmp_path, batches=3, probes=(probe,))
    assert scalars(tmp_path / "run") == {"memory/host_rss_mib": [(1, 1), (3, 1)]}


def test_the_scalars_of_a_long_run_keep_its_peak_and_are_few(tmp_path: Path) -> None:
    peak = 33_333
    probe = FakeProbe(fast=lambda n: [float(9 if n == peak else 1) * MIB])
    write_run(tmp_path, batches=50_000, probes=(probe,))
    points = scalars(tmp_path / "run")["memory/host_rss_mib"]
    steps = [step for step, _ in points]
    assert steps == sorted(set(steps)) and steps[-1] == 50_000
    assert max(value for _, value in points) == 9
    [at] = [step for step, value in points if value == 9]
    assert peak <= at < peak + 256
    assert len(points) < 12_000


def test_steps_rise_over_the_files_of_a_resumed_run(tmp_path: Path) -> None:
    for created in (100.0, 200.0):
        target = recorder_on_disk(tmp_path, clock=FakeClock(created))
        target.begin_stage("train")
        target.begin_epoch(1, resumed=True)
        for batch in range(3):
            target.batch_end(batch)
        target.end_stage()
        target.close()
    steps = [step for step, _ in scalars(tmp_path / "run")["memory/host_rss_mib"]]
    assert steps == [1, 2, 3, 4, 5, 6]
