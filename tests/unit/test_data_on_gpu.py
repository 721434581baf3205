"""Data sets that lie on a GPU as a whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kerasmemwatch.attribution.live.batch_spec import BatchPart
from kerasmemwatch.attribution.live.data_on_gpu import data_on_gpu, host_copies
from kerasmemwatch.attribution.live.live_buffers import KnownBuffer

IMAGES = KnownBuffer("input pipeline", "", "inputs", 40 << 20, address=4096, device="GPU:0")
LABELS = replace(IMAGES, bytes=20 << 20, address=1 << 30)
BATCH = [BatchPart(4 << 20, False), BatchPart(2 << 20, False)]


def test_a_data_set_on_a_gpu_is_told_with_its_bytes_and_the_fix() -> None:
    words = data_on_gpu([IMAGES, LABELS], BATCH, None)
    assert words.startswith("A whole data set is on GPU:0 (60.0 MiB), of which a step needs 6.0 MiB. ")
    assert "with tf.device('CPU:0'): data = tf.data.Dataset.from_tensor_slices((x, y))" in words
    assert "\n" not in words


def test_each_gpu_is_told_by_itself() -> None:
    words = data_on_gpu([IMAGES, replace(LABELS, device="GPU:1")], BATCH, None)
    assert "is on GPU:0 (40.0 MiB) and GPU:1 (20.0 MiB), of" in words


@pytest.mark.parametrize(
    ("known", "rows"),
    [
        ([], None),
        ([replace(IMAGES, device="CPU:0")], None),  # in host memory, as tf.data wants it
        ([replace(IMAGES, category="other", owner="eager tensors")], None),  # nobody knows what for
        ([replace(IMAGES, bytes=6 << 20)], None),  # as much as a batch: from_tensors(batch).repeat()
        ([replace(IMAGES, category="weights", key=1)], None),
    ],
    ids=["nothing", "host", "other", "batch", "weights"],
)
def test_what_is_no_whole_data_set_is_not_told(known: list[KnownBuffer], rows: int | None) -> None:
    assert data_on_gpu(known, BATCH, rows) == ""


def test_a_batch_of_so_many_rows_is_compared() -> None:
    row = [BatchPart(1 << 20, True)]
    assert data_on_gpu([IMAGES], row, 40) == ""
    assert "of which a step needs 32.0 MiB" in data_on_gpu([IMAGES], row, 32)


def test_of_a_batch_of_unknown_size_nothing_is_told() -> None:
    # It may be all that lies there.
    assert data_on_gpu([IMAGES], [BatchPart(1 << 20, True)], None) == ""


def test_what_a_dataset_holds_on_a_gpu_is_in_host_memory_too() -> None:
    batch, on_host = replace(IMAGES, address=8192), replace(IMAGES, device="CPU:0")
    found = host_copies([IMAGES, LABELS, batch, on_host, replace(IMAGES, category="weights")], {batch.address})
    assert found == [replace(IMAGES, address=0, device="CPU:0"), replace(LABELS, address=0, device="CPU:0")]
