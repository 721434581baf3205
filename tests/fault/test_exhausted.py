"""A real out-of-memory error."""

from __future__ import annotations

import json

import pytest

from kerasmemwatch.recording import load


@pytest.mark.long
def test_an_out_of_memory_error_in_a_fit(execute_forked, tmp_path):
    done = execute_forked(
        "exhausted.py",
        tmp_path,
        TF_CPU_ALLOCATOR_USE_BFC="1",
        TF_CPU_BFC_MEM_LIMIT_IN_MB="256",
        TF_ENABLE_ONEDNN_OPTS="0",
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    before = list(range(1, 8))  # the last of them did not end
    assert found["error"] == ["ResourceExhaustedError", True, True]
    assert found["recording"] == found["disk"] == before
    assert found["report"].startswith("Step 7 ran out of memory: layer hungry asked for 1.0 GiB for a batch of 4")
    assert found["next fit"] == list(range(1, 7 + 16 + 1))
    assert found["messages"] == []
    # The second one ended the process.
    assert done.returncode == 1
    assert "ResourceExhaustedError" in done.stderr and "Fatal Python error" not in done.stderr
    recording = load(tmp_path)
    samples = recording.samples
    assert samples["step"].tolist() == list(range(1, 7 + 16 + 7 + 1))
    assert recording.run.devices[0].limit_bytes in (None, 256 * 1024**2)
    assert samples["step"][~samples["ended"]].tolist() == [7, 7 + 16 + 7]
    assert (samples["device_peak_bytes"] < 256 * 1024**2).all()
    page, path = sorted((tmp_path / "run").iterdir(), key=lambda each: "tfevents" in each.name)
    assert page.name == "out-of-memory.html" and "tfevents" in path.name
