"""Keep more memory in each epoch, below a limit, and end in the way that is asked for.

Arguments: the log dir; how to end; and either a cgroup to enter, whose limit the kernel enforces, or a folder for a
cgroup's files, whose limit the product reads and nobody enforces, and the share of it to reach.
"""

import os
import signal
import sys
from pathlib import Path

log_dir, ending, cgroup = sys.argv[1:4]
# A shell's background jobs, and what they start, ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
if ending == "cgroup":
    Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))

# What is imported counts, too.
import keras  # noqa: E402
import numpy as np  # noqa: E402

import kerasmemwatch as kmw  # noqa: E402
from kerasmemwatch.probes.host import HostProbe  # noqa: E402

MIB = 2**20


def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Keeps(keras.callbacks.Callback):
    """Keeps arrays, as a list in a callback or a cache does."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def on_epoch_begin(self, epoch, logs=None):
        if epoch:
            left = 64 * MIB if ending == "cgroup" else (int(share * limit) - rss()) // (1 if epoch > 3 else 2)
            self.kept.append(np.ones(max(0, left), np.uint8))

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 6 and ending != "cgroup":
            end()


def end():
    if ending == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if ending == "SIGTERM":
        os.kill(os.getpid(), signal.SIGTERM)
    if ending == "SIGINT":
        os.kill(os.getpid(), signal.SIGINT)
    if ending == "raises":
        raise ValueError("the user's")
    if ending == "running":
        print(str(kmw.load(log_dir).report), flush=True)


probes = None
if ending != "cgroup":
    share = float(sys.argv[4])
    limit = int((rss() + 400 * MIB) / share)  # of which a model takes some 100
    Path(cgroup, "memory.max").write_text(str(limit))
    Path(cgroup, "self").mkdir()
    Path(cgroup, "self", "cgroup").write_text("0::/\n")
    Path(cgroup, "self", "statm").symlink_to("/proc/self/statm")
    probes = [HostProbe(proc_root=Path(cgroup), cgroup_root=Path(cgroup))]
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
model.compile("sgd", "mse")
watch = kmw.MemoryWatch(log_dir, run_name="run", trace=False, probes=probes)
epochs = 10_000 if ending == "cgroup" else 8
model.fit(np.ones((40, 8)), np.ones((40, 4)), batch_size=10, epochs=epochs, verbose=0, callbacks=[watch, Keeps()])
