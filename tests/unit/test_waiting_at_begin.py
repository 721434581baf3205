"""What waits in an input pipeline is counted a moment after a capture has begun."""

from __future__ import annotations

from captures import PIPELINE, chunk, events

from kerasmemwatch.attribution.waiting_batches import waiting_at_begin


def test_what_pipelines_made_and_freed_before_the_count_is_told_apart() -> None:
    made = events(
        [
            (256, 700, "Batch", PIPELINE),
            (1024, -300, "", PIPELINE),  # made before the capture
            (2048, 900, "MatMul"),
            (4096, 500, "Batch", PIPELINE),  # after the count
        ]
    )
    assert waiting_at_begin(5_000, made, 1_025) == 5_000 - chunk(700) + chunk(300)


def test_no_less_than_nothing_waits() -> None:
    assert waiting_at_begin(100, events([(256, 700, "Batch", PIPELINE)]), 2_000) == 0
