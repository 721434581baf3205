"""Record rows without end and without TensorFlow, telling each in a line, until killed; store them now and then."""

import sys

from fault_kit import toy_recorder, train

recorder = toy_recorder(sys.argv[1])
flush_every = int(sys.argv[2])


def tell(step: int) -> None:
    if not step % flush_every:
        recorder.flush()
    print(step, flush=True)


train(recorder, 10**9, tell)
