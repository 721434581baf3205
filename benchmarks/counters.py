"""What the counters of ``kerasmemwatch.probes.counters`` cost a step.

    python benchmarks/counters.py                      # about twenty seconds

``cold`` reads them after something else has used the processor's caches, as a step does. Figures are medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

from _targets import at_most

_MOST_US = 3.0


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=20_000, help="reads, half of them cold")
    reads = parser.parse_args(argv).reads // 2
    import numpy as np
    import tensorflow as tf

    from kerasmemwatch.probes.counters import CounterProbe

    tf.function(lambda x: x + 1)(1.0)
    probe, other = CounterProbe(), np.ones(1 << 17)
    probe.open()

    def nothing() -> tuple[float, ...]:
        return (0.0,) * 4

    hot = _us(probe.batch_end, reads) - _us(nothing, reads)
    cold = _us(probe.batch_end, reads, other.sum) - _us(nothing, reads, other.sum)
    slow = _us(probe.epoch_end, min(reads, 500))
    print(f"a step's counters: {hot:.2f} us hot, {cold:.2f} us cold; an epoch end's: {slow:.0f} us")
    print(at_most("a step's counters, cold", cold, _MOST_US, "us"))


def _us(read: Callable[[], object], times: int, before: Callable[[], object] = lambda: None) -> float:
    clock, found = time.perf_counter_ns, []
    for _ in range(times):
        before()
        begun = clock()
        read()
        found.append(clock() - begun)
    return statistics.median(found) / 1e3


if __name__ == "__main__":
    main()
