"""Record while no file may grow, as on a full disk, then while files may; without TensorFlow.

A limit on the size of files gives the same errors as a full disk, without a disk to fill.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

from fault_kit import Messages, end_fit, is_toy_row, toy_recorder, train

from kerasmemwatch.recording import load
from kerasmemwatch.storage.files.event_file import read_records

log_dir, full_from = sys.argv[1], int(sys.argv[2])
run_dir = os.path.join(log_dir, "run")
messages = Messages()
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)


def allow(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def event_files() -> list[str]:
    return [os.path.join(run_dir, name) for name in os.listdir(run_dir) if "tfevents" in name]


def event_files_that_stay() -> list[str]:
    """Those that are still there in a while: the thread that stores makes one to try again, and removes it."""
    until = time.monotonic() + 30
    while (found := event_files()) and time.monotonic() < until:
        time.sleep(0.01)
    return found  # of one look: at the next, the thread may be trying again


def good_rows(samples) -> int:
    """How many rows there are, if they are the toy probe's, each step once and in order."""
    assert samples["step"].tolist() == list(range(1, samples.num_samples + 1))
    assert all(is_toy_row(samples, row) for row in range(samples.num_samples))
    return samples.num_samples


def fill_up(step: int) -> None:
    if step == full_from:
        recorder.flush()
        allow(os.path.getsize(event_files()[0]) + 100)  # the next write ends within a record
    if step % 100 == 99:
        recorder.flush()


recorder = toy_recorder(log_dir)
if not full_from:
    allow(0)
train(recorder, 500, fill_up)
end_fit(recorder)
found = {"recorded while full": good_rows(recorder.snapshot().samples)}
if full_from:
    found["stored while full"] = good_rows(load(log_dir).samples)
    found["notes while full"] = list(load(log_dir).run.notes)
else:
    found["event files while full"] = len(event_files_that_stay())
found["messages while full"] = list(messages.texts)
allow(hard)
recorder.flush()
found["stored later"] = good_rows(load(log_dir).samples)
train(recorder, 100)
end_fit(recorder)
found["stored in the end"] = good_rows(load(log_dir).samples)
recorder.close()
found["files in the end"] = len(os.listdir(run_dir))
data = b"".join(Path(path).read_bytes() for path in event_files())
found["bytes unaccounted for"] = len(data) - sum(len(record) + 16 for record in read_records(data))
found["messages later"] = messages.texts[len(found["messages while full"]) :]
found["notes"] = list(load(log_dir).run.notes)
print(json.dumps(found))
