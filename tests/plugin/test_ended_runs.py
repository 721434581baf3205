"""How a run ended is read from its directory, where TensorBoard knows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import asking, sections
from fakes import NoFlusher, recorder_on_disk
from loaders import python_provider

from kerasmemwatch.storage import run_writer


def test_a_killed_run_says_so_with_the_rows_of_its_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_writer, "FlushThread", NoFlusher)
    target = recorder_on_disk(tmp_path)
    target.begin_stage("train")
    for batch in range(12):
        target.batch_begin()
        target.batch_end(batch)
        if batch == 4:
            target.flush()
    provider = python_provider(tmp_path)
    ask = asking(provider, tmp_path)
    assert [each["title"] for each in sections(ask("overview", run="run")[1], "notes")] == ["Notes"]
    target.drop()  # the lock is gone, the files stay
    ending, *_ = sections(ask("overview", run="run")[1], "notes")
    assert ending["title"].startswith("Ended abruptly at step 12")
    # A TensorBoard that doesn't know the directory can't know it.
    assert [each["title"] for each in sections(asking(provider)("overview", run="run")[1], "notes")] == ["Notes"]
