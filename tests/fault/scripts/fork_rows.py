"""Fork in the middle of a recording; the child tells what it sees and goes on in every way; without TensorFlow."""

import json
import multiprocessing
import os
import sys
import threading
import warnings

from fault_kit import end_fit, is_toy_row, toy_recorder, train

log_dir, how = sys.argv[1], sys.argv[2]
# Python 3.12 warns of forks in a process with threads, which is what this is about.
warnings.simplefilter("ignore", DeprecationWarning)


def good_rows(samples) -> int:
    assert samples["step"].tolist() == list(range(1, samples.num_samples + 1))
    assert all(is_toy_row(samples, row) for row in range(samples.num_samples))
    return samples.num_samples


def child() -> dict:
    """All that a child may do with the parent's recorder, and a recording of its own."""
    found = {"seen": good_rows(recorder.snapshot().samples)}
    train(recorder, 10)
    end_fit(recorder)
    recorder.flush()
    recorder.describe([])
    found["seen after"] = good_rows(recorder.snapshot().samples)
    own = toy_recorder(log_dir)
    train(own, 5)
    end_fit(own)
    found["own"] = own.snapshot().run.name
    return found


def fork_while_it_stores() -> None:
    """Fork while another thread holds every lock of the recorder, as the one that stores rows may."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with recorder._lock, recorder._log._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    reader, writer = os.pipe()
    if not os.fork():
        os.write(writer, json.dumps(child()).encode())
        if how == "_exit":
            os._exit(0)
        if how == "raise":
            raise RuntimeError("the child's own")
        sys.exit(0)  # runs what is registered with atexit
    done.set()
    thread.join()
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told["child"] = json.loads(pipe.read())
    told["status"] = os.waitstatus_to_exitcode(os.wait()[1])


def pool() -> None:
    with multiprocessing.get_context("fork").Pool(2) as workers:
        told["child"] = workers.apply(child)
        workers.close()
        workers.join()
    told["status"] = 0


def read_late() -> None:
    """The child reads only after the parent has gone round its ring of rows."""
    (reader, writer), (go, gone) = os.pipe(), os.pipe()
    if not os.fork():
        os.read(go, 1)
        os.write(writer, json.dumps(child()).encode())
        os._exit(0)
    for batch in range(50, 9000):
        recorder.batch_begin()
        recorder.batch_end(batch)
    os.write(gone, b"x")
    told["child"] = json.loads(os.read(reader, 10_000))
    told["status"] = os.waitstatus_to_exitcode(os.wait()[1])


told = {}
recorder = toy_recorder(log_dir)
train(recorder, 50, lambda step: step % 10 or recorder.flush())
{"pool": pool, "late": read_late}.get(how, fork_while_it_stores)()
train(recorder, 50, lambda step: step % 10 or recorder.flush())
end_fit(recorder)
samples = recorder.snapshot().samples
told["parent"] = int(samples["step"][-1]) if how == "late" else good_rows(samples)
recorder.close()
print(json.dumps(told))
