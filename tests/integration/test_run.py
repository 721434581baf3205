"""`kerasmemwatch run` against plain runs of the same scripts: nothing differs but the recordings."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from forks import plain_environment

from kerasmemwatch.recording import load, runs

ROOT = str(Path(__file__).parents[2])
WATCHED = ["-m", "kerasmemwatch", "run"]
# TensorFlow's log holds times and process ids, and names of functions a count of all tensors.
NOISE = re.compile(r"^(WARNING: All log messages|[IWE]\d{4} |To enable the following|\t \[\[).*\n", re.MULTILINE)
COUNT = re.compile(r"(?<=__inference_one_step_on_data_)\d+")


def execute(
    folder: Path, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=plain_environment() if env is None else env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    done.stderr = NOISE.sub("", done.stderr)
    done.stdout = COUNT.sub("", done.stdout)
    return done


def assert_same(
    folder: Path, *arguments: str, flags: tuple[str, ...] = (), stdin: str = "", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run plainly and watched; compare exit code and streams."""
    plain = execute(folder, *flags, *arguments, stdin=stdin, env=env)
    watched = execute(folder, *flags, *WATCHED, *arguments, stdin=stdin, env=env)
    assert watched.stdout == plain.stdout
    assert watched.stderr == plain.stderr
    assert watched.returncode == plain.returncode
    return watched


def write(folder: Path, **scripts: str) -> None:
    for name, text in scripts.items():
        path = folder / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


INSPECT = """
import pickle, sys
import sibling

class Thing:
    pass

print(sys.argv, __name__, __file__, sys.path, sys.flags, sys.warnoptions, sys._xoptions)
print("sitecustomize" in sys.modules, sys.stdin.read(), sibling.__file__)
print(pickle.loads(pickle.dumps(Thing())).__class__ is Thing, pickle.dumps(Thing()))
print("to stderr", file=sys.stderr)
sys.exit(7)
"""


def test_script_sees_the_interpreter_of_a_plain_run(tmp_path: Path) -> None:
    write(tmp_path, script=INSPECT, sibling="")
    flags = ("-O", "-W", "error::UserWarning", "-X", "no_debug_ranges")
    done = assert_same(tmp_path, "script.py", "--log-dir", "x", "-m", flags=flags, stdin="typed in")
    assert (done.returncode, "typed in" in done.stdout) == (7, True)


def test_module_with_relative_imports(tmp_path: Path) -> None:
    main = "import sys\nfrom . import sibling\nprint(sys.argv, __name__, __package__, sys.path)\nsibling.fail()\n"
    write(tmp_path, pkg__in____init__="", pkg__in__mod=main, pkg__in__sibling="def fail():\n    raise OSError('no')\n")
    assert "OSError: no" in assert_same(tmp_path, "-m", "pkg.mod", "a", "-b").stderr


@pytest.mark.parametrize("text", ["import sys\nsys.mine = __file__", "import json\n1 / 0", "import nowhere"])
def test_own_sitecustomize_still_runs(tmp_path: Path, text: str) -> None:
    write(tmp_path, site__in__sitecustomize=text)
    write(tmp_path, script="import sys; print(getattr(sys, 'mine', ''), 'sitecustomize' in sys.modules, sys.path)")
    env = plain_environment(PYTHONPATH=os.pathsep.join([str(tmp_path / "site"), ROOT]))
    plain = execute(tmp_path, "script.py", env=env)
    watched = execute(tmp_path, *WATCHED, "script.py", env=env)
    assert (watched.stdout, watched.returncode) == (plain.stdout, plain.returncode)
    # The launcher is a Python too, and has passed through it before.
    assert watched.stderr == 2 * plain.stderr


def test_keras_that_fails_to_import_fails_alike(tmp_path: Path) -> None:
    """The traceback of an import is cleaned by Python, which works only if nothing of ours is left in it."""
    write(tmp_path, script="import keras", keras="def fail():\n    raise RuntimeError('broken')\nfail()\n")
    assert "RuntimeError: broken" in assert_same(tmp_path, "script.py").stderr


CHILDREN = """
import multiprocessing, os, sys
import sibling

def work(number):
    print(number, sys.argv, sibling.__name__, __name__, sys.path, flush=True)
    return number

if __name__ == "__main__":
    for method in ("spawn", "fork", "forkserver"):
        context = multiprocessing.get_context(method)
        with context.Pool(1) as pool:
            print(pool.map(work, [1, 2]), flush=True)
        child = context.Process(target=sys.exit, args=(5,))
        child.start()
        child.join()
        print(method, child.exitcode, flush=True)
    print(os.waitstatus_to_exitcode(os.system(sys.executable + " -c 'import sys; print(sys.path); sys.exit(3)'")))
"""


@pytest.mark.skipif(os.name == "nt", reason="fork")
def test_children_are_unharmed(tmp_path: Path) -> None:
    write(tmp_path, script=CHILDREN, sibling="")
    assert "forkserver 5" in assert_same(tmp_path, "script.py", "a").stdout


def test_disabled_run_is_a_plain_run(tmp_path: Path) -> None:
    write(tmp_path, script="import os\nprint(sorted(os.environ.items()))")
    assert_same(tmp_path, "script.py", env=plain_environment(KERASMEMWATCH_DISABLE="1"))


TRAIN = """
import gc, inspect, sys, traceback, weakref
import keras, numpy as np

class Nested(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.predict(x, verbose=0)
        self.model.predict_on_batch(x)
        print(epoch, sorted(logs), len(self.params))

class Failing(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        print("begins")
    def on_train_batch_end(self, batch, logs=None):
        raise ValueError("stop")

keras.utils.set_random_seed(1)
x, y = np.random.rand(64, 3), np.random.rand(64, 1)
for use in (lambda m: m.predict(x, verbose=0), lambda m: m.predict_on_batch(x)):
    other = keras.Sequential([keras.layers.Dense(1)])
    use(other)
    reference = weakref.ref(other)
    del other
    gc.collect()
    print("freed", reference() is None)
model = keras.Sequential([keras.layers.Dense(4), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
model.compile("sgd", "mse")
print(model.fit(x, y, epochs=2, verbose=0, batch_size=8, validation_data=(x, y), callbacks=Nested()).history)
print(model.evaluate(x, y, verbose=0), model.predict(x, verbose=0).sum(), inspect.signature(model.train_on_batch))
for _ in range(3):
    print(model.train_on_batch(x, y), model.test_on_batch(x, y))
for faulty in (lambda: model.train_on_batch(x[:, :2], y), lambda: model.fit(x, y, verbose=0, callbacks=[Failing()])):
    try:
        faulty()
    except Exception:
        print(traceback.format_exc())
model.predict_on_batch(x)
keras.config.disable_traceback_filtering()
model.fit(x, y, verbose=0, callbacks=[Failing()])
"""


@pytest.mark.long
def test_training_is_recorded_and_all_else_is_the_same(tmp_path: Path) -> None:
    write(tmp_path, script=TRAIN)
    done = assert_same(tmp_path, "script.py")
    assert done.stdout.count("ValueError: stop") == 1
    assert done.stderr.endswith("ValueError: stop\n")
    [run] = runs(tmp_path / "logs")
    recording = load(tmp_path / "logs", run)
    stages = list(recording.samples["stage"])
    # What the callback predicts within the fit is a part of the fit. A fit that raises at a batch's end has that row,
    # a train_on_batch that raises has one that did not end, and what follows either is recorded.
    epochs, singles, raised = 2 * 8, 3, 3
    assert stages.count("train") == epochs + singles + raised
    assert recording.samples["ended"].tolist().count(False) == 1
    assert stages.count("test") == epochs + 2 + singles
    assert stages.count("predict") == 2 + 1 + 2 + 1


OWN_WATCH = """
import sys
import keras, numpy as np, tensorflow as tf
import kerasmemwatch as kmw

def used():
    return tf.config.experimental.get_memory_info("CPU:0")["current"]

before = used()
small = tf.ones([1024]) + 1
print(used() - before)
model = keras.Sequential([keras.layers.Dense(1)])
model.compile("sgd", "mse")
x, y = np.ones((16, 3)), np.ones((16, 1))
model.fit(x, y, batch_size=4, verbose=0, callbacks=[kmw.MemoryWatch("own", verbose=0)])
for _ in range(5):
    model.train_on_batch(x, y)
"""


@pytest.mark.long
def test_own_watch_stays_the_only_one_and_counting_is_exact(tmp_path: Path) -> None:
    write(tmp_path, script=OWN_WATCH)
    done = execute(tmp_path, *WATCHED, "--log-dir", "shared", "script.py")
    assert (done.returncode, done.stdout) == (0, "4096\n")
    assert len(load(tmp_path / "own").samples["step"]) == 4
    shared = load(tmp_path / "shared")
    assert list(shared.samples["stage"]) == ["train"] * 5
    assert [device.counting for device in shared.run.devices] == ["exact"]


TRAINING_CHILDREN = """
import multiprocessing, sys

def train():
    import keras, numpy as np
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 3)), np.ones((8, 1)), batch_size=4, verbose=0)

if __name__ == "__main__":
    children = [multiprocessing.get_context(method).Process(target=train) for method in ("spawn", "fork")]
    for child in children:
        child.start()
    for child in children:
        child.join()
    print([child.exitcode for child in children])
"""


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="fork")
def test_children_have_their_own_runs(tmp_path: Path) -> None:
    """The launcher's package is on nobody's path here."""
    write(tmp_path, script=TRAINING_CHILDREN)
    launcher = f"import sys; sys.path.insert(0, {ROOT!r}); from kerasmemwatch.cli import main; sys.exit(main())"
    env = plain_environment()
    del env["PYTHONPATH"]
    done = execute(tmp_path, "-c", launcher, "run", "script.py", env=env)
    assert (done.returncode, done.stdout) == (0, "[0, 0]\n"), done.stderr
    names = runs(tmp_path / "logs")
    assert [len(load(tmp_path / "logs", name).samples["step"]) for name in names] == [2, 2]


# The interrupt comes as Python sleeps: one that comes while TensorFlow calls Python may be lost, also without us.
ENDLESS = """
import time
import keras, numpy as np

class Ready(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            print("ready", flush=True)
            time.sleep(100)

model = keras.Sequential([keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(np.ones((8, 3)), np.ones((8, 1)), epochs=10**9, batch_size=1, verbose=0, callbacks=[Ready()])
"""


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_interrupt_ends_the_script_as_it_would(tmp_path: Path) -> None:
    write(tmp_path, script=ENDLESS)
    with subprocess.Popen(
        [sys.executable, *WATCHED, "script.py"],
        cwd=tmp_path,
        env=plain_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in a shell's background inherits that interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGINT
    assert errors.endswith("KeyboardInterrupt\n")
    assert len(load(tmp_path / "logs").samples["step"]) >= 4
