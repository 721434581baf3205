"""Makes a watch's recorder and step tracing from its options."""

from __future__ import annotations

import os

import keras

from kerasmemwatch.compat import keras as keras_names
from kerasmemwatch.compat import tensorboard as tensorboard_names
from kerasmemwatch.compat import tensorflow as tensorflow_names
from kerasmemwatch.environment import configuration, versions, worker
from kerasmemwatch.probes import default_probes
from kerasmemwatch.probes.allocators import has_gpu
from kerasmemwatch.sampling.cost_share import SLOW_READS
from kerasmemwatch.sampling.process_exit import release
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.storage.run_store import open_store
from kerasmemwatch.tracing.controller import Tracing
from kerasmemwatch.watch.options import Options
from kerasmemwatch.watch.search.leak_search import LeakSearch

__all__ = ["new_leak_search", "new_recorder", "new_tracing"]


def new_recorder(options: Options) -> Recorder:
    """A recorder that opens its run and files at the first sample."""
    probes = options.probes
    if probes is None:
        whole = options.sample_every > 1
        probes = default_probes(keras.config.backend(), reset_peak=options.reset_peak, whole_window=whole)
    trace = options.trace
    this_worker = worker(os.environ)
    about = {
        "name": options.run_name or "",
        "tags": options.tags,
        "versions": versions(),
        "worker": this_worker,
        "configuration": {
            **configuration(),
            "sample_every": options.sample_every,
            "reset_peak": options.reset_peak,
            "trace": trace if isinstance(trace, (str, bool, type(None))) else list(trace),
        },
    }
    recorder = Recorder(
        probes,
        lambda created, resume: open_store(
            options.log_dir,
            options.run_name,
            created=created,
            resume=resume,
            worker=this_worker,
            sinks=options.sinks,
            release=release,
        ),
        sample_every=options.sample_every,
        strict=options.strict,
        about=about,
        slow_reads=SLOW_READS,
    )
    recorder.faults.tell_missing((*keras_names.RECORDING, *tensorflow_names.RECORDING))
    if options.release_dead_models:
        recorder.faults.tell_missing(tensorflow_names.RELEASE)
    if options.log_dir is not None and options.sinks is None:
        recorder.faults.tell_missing(tensorboard_names.SCALARS)
    return recorder


def new_leak_search(options: Options, recorder: Recorder) -> LeakSearch | None:
    """The search for causes of growth; ``None`` if it is not wanted or another backend trains."""
    is_wanted = options.detect_leaks and keras.config.backend() == "tensorflow"
    return LeakSearch(recorder) if is_wanted else None


def new_tracing(options: Options, recorder: Recorder) -> Tracing | None:
    """The step tracing; ``None`` if no steps are wanted or another backend trains."""
    wanted = options.trace
    if wanted is None or wanted is False or keras.config.backend() != "tensorflow":
        return None
    recorder.faults.tell_missing((*keras_names.TRACING, *tensorflow_names.TRACING))
    has_name = options.log_dir is not None or options.run_name is not None
    return Tracing(
        "auto" if wanted is True else wanted,
        recorder.faults,
        recorder.newest,
        lambda: (recorder.step, recorder.epoch),
        lambda: recorder.run.name if has_name else "",
        recorder.expect_steps,
        has_windows=options.reset_peak and options.sample_every == 1,
        first=has_gpu,
    )
