"""Record while the log dir is taken away in one way or another; without TensorFlow."""

import json
import os
import shutil
import sys
from pathlib import Path

from fault_kit import Messages, end_fit, is_toy_row, toy_recorder, train

from kerasmemwatch.errors import LogDirError
from kerasmemwatch.watch.options import Options

top, how = sys.argv[1], sys.argv[2]
log_dir = os.path.join(top, "logs")
os.mkdir(log_dir)
messages = Messages()
recorder = toy_recorder(log_dir)
found = {}


def remove(step: int) -> None:
    if step == 100 and os.path.isdir(log_dir):
        recorder.flush()
        if how in ("removed", "replaced"):
            shutil.rmtree(log_dir)
        if how == "replaced":
            Path(log_dir).touch()
    if step > 100 and not step % 50:
        recorder.flush()


if how == "locked":
    if os.getuid() == 0:
        os.chmod(top, 0o755)
        os.setgid(65534)
        os.setuid(65534)  # root may write anywhere
        assert not os.access(log_dir, os.W_OK)
    else:
        os.chmod(log_dir, 0o555)
    try:
        Options(log_dir)
    except LogDirError as error:
        found["refused"] = str(error)
for _ in range(2):
    train(recorder, 300, remove)
    end_fit(recorder)
samples = recorder.snapshot().samples
found["rows"] = samples.num_samples
found["right"] = all(is_toy_row(samples, row) for row in range(samples.num_samples))
found["messages"] = messages.texts
print(json.dumps(found))
