"""Record rows as fast as it goes, storing them often, until standard input ends."""

import sys
import threading

from fault_kit import end_fit, toy_recorder

recorder = toy_recorder(sys.argv[1])
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set())).start()
print("ready", flush=True)
step = 0
while not ended.is_set():
    recorder.begin_stage("train")
    for batch in range(20_000):
        recorder.batch_begin()
        recorder.batch_end(batch)
        step += 1
        if not step % 1500:
            recorder.end_epoch()
            recorder.flush()
        if ended.is_set():
            break
    end_fit(recorder)  # closes the journal; the next row opens it again
print(step, flush=True)
