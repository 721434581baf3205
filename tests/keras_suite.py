"""Keras' own tests with a MemoryWatch on every fit: what passes plainly has to pass with it, too.

    python tests/keras_suite.py                    # all watched, then plainly what did not pass; some minutes
    python tests/keras_suite.py --only-watched     # a shorter look
    python tests/keras_suite.py -k "trainer_test"  # some of them, as pytest's -k
    python tests/keras_suite.py --turn 7           # a third of them, chosen by the number

The tests are those that ship in the Keras wheel. Every ``CallbackList`` that has no watch gets a strict one of its
own, so a fault of ours fails the test. This is no test of pytest's, as it takes minutes.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import types
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
_TESTS = ("trainers/trainer_test.py", "callbacks")
# The first needs a conftest of Keras' that is not in the wheel, the second a package that TensorFlow does not.
_LEFT_OUT = ("callbacks/remote_monitor_test.py", "callbacks/orbax_checkpoint_test.py")
_PASSED = "passed"
_NUM_PROCESSES, _NUM_TURNS = 2, 3


class Outcomes:
    """A plugin for pytest that chooses every so-manieth test, and notes how each of them ended."""

    def __init__(self, share: slice) -> None:
        self.by_test: dict[str, str] = {}
        self._share = share

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Leave the other tests to the other processes."""
        items[:] = items[self._share]

    def pytest_collection_finish(self) -> None:
        """Take the stand-in for JAX away, which nothing but an import needed."""
        if getattr(sys.modules.get("jax"), "__spec__", None) is None:
            sys.modules.pop("jax", None)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note the call's outcome, or that of a set-up or tear-down that did not pass."""
        if report.when == "call" or not report.passed:
            self.by_test[report.nodeid] = report.outcome

    def pytest_runtest_teardown(self) -> None:
        """Set aside what TensorFlow keeps of each fit, which makes every later search among all objects slower."""
        gc.collect()
        gc.freeze()

    def pytest_collectreport(self, report: Any) -> None:
        """Note files that cannot be imported."""
        if report.failed:
            self.by_test[report.nodeid] = "not collected"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tests, print what differs, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only-watched",
        action="store_true",
        help="no plain run to compare with: 1 if any test fails, for want of a package, too",
    )
    parser.add_argument("-k", metavar="EXPRESSION", default="", help="which tests, as pytest's -k")
    parser.add_argument(
        "--turn", type=int, help=f"one test in {_NUM_TURNS}; {_NUM_TURNS} numbers in a row choose all of them"
    )
    parser.add_argument("--child", metavar="OUTCOMES", help=argparse.SUPPRESS)
    parser.add_argument("--share", metavar=("INDEX", "OF"), nargs=2, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--tests", metavar="PATH", help=argparse.SUPPRESS)
    parser.add_argument("--log-dir", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        return _run_tests(options)
    with tempfile.TemporaryDirectory(prefix="keras-suite-") as folder:
        log_dir = Path(folder, "logs")
        log_dir.mkdir()
        watched = _outcomes(options.k, Path(folder, "watched"), log_dir, turn=options.turn)
        # What passes with the watch need not pass plainly.
        others = sorted(test for test, outcome in watched.items() if outcome != _PASSED)
        is_compared = others and not options.only_watched
        plain = _outcomes(options.k, Path(folder, "plain"), tests=others) if is_compared else {}
        num_rows = _show_recordings(log_dir)
    return _summarise(watched, num_rows) if options.only_watched else _compare(plain, watched, num_rows)


def _outcomes(
    selection: str,
    folder: Path,
    log_dir: Path | None = None,
    tests: Sequence[str] | None = None,
    turn: int | None = None,
) -> dict[str, str]:
    """Run the tests, or those of some names, from empty folders in interpreters of their own, each a share of them."""
    first, num_turns = (0, 1) if turn is None else (turn % _NUM_TURNS, _NUM_TURNS)
    print(f"\n== Keras' tests, {'plainly' if log_dir is None else 'watched'} ==", flush=True)
    folder.mkdir()
    chosen = folder / "tests.json"
    chosen.write_text(json.dumps(tests))
    command = [sys.executable, str(Path(__file__).resolve()), "-k", selection, "--tests", str(chosen)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_CPU_ALLOCATOR_USE_BFC": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_ROOT), environment.get("PYTHONPATH"))))
    num_processes = _NUM_PROCESSES if tests is None else 1
    places = [folder / str(index) for index in range(num_processes)]
    started = []
    for index, place in enumerate(places):
        place.mkdir()
        share = str(first + num_turns * index), str(num_turns * num_processes)
        child = [*command, "--child", str(place / "outcomes.json"), "--share", *share]
        if log_dir is not None:
            child += ["--log-dir", str(log_dir / str(index))]
        with (place / "output.txt").open("wb") as output:
            started.append(subprocess.Popen(child, cwd=place, env=environment, stdout=output, stderr=subprocess.STDOUT))
    outcomes: dict[str, str] = {}
    for place, process in zip(places, started, strict=True):
        process.wait()
        print((place / "output.txt").read_text(errors="replace"), flush=True)
    for place in places:
        if not (place / "outcomes.json").exists():
            raise SystemExit("The tests did not come to an end.")
        outcomes |= json.loads((place / "outcomes.json").read_text())
    return outcomes


def _run_tests(options: argparse.Namespace) -> int:
    """In the child: run pytest on a share of the tests, apart from this project's settings and tests."""
    import keras
    import pytest

    source = Path(keras.__file__).parent / "src"
    if importlib.util.find_spec("jax") is None:
        # trainer_test.py imports JAX at its top and uses it on the JAX backend only.
        sys.modules["jax"] = types.ModuleType("jax")
    if options.log_dir is not None:
        Path(options.log_dir).mkdir()
        _watch_every_list(options.log_dir)
    # The import path must not lead to this folder's tests.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    outcomes = Outcomes(slice(options.share[0], None, options.share[1]))
    tests = json.loads(Path(options.tests).read_text())
    places = [source / name for name in _TESTS] if tests is None else [source / test for test in tests]
    code = pytest.main(
        [
            *("-c", os.devnull, "--rootdir", str(source), "-p", "no:cacheprovider", "-q", "--no-header", "--tb=short"),
            *("--continue-on-collection-errors", "--disable-warnings"),
            # What goes wrong in a thread of ours is a failure, too.
            *("-W", "error::pytest.PytestUnhandledThreadExceptionWarning"),
            *(f"--ignore={source / name}" for name in _LEFT_OUT),
            *(["-k", options.k] if options.k else []),
            *map(str, places),
        ],
        plugins=[outcomes],
    )
    Path(options.child).write_text(json.dumps(outcomes.by_test))
    return int(code)


def _watch_every_list(log_dir: str) -> None:
    """Put a watch first into each ``CallbackList`` without one, as if the test had."""
    import keras

    from kerasmemwatch import MemoryWatch

    callback_list = keras.callbacks.CallbackList
    initialise = callback_list.__init__

    def watched(self: Any, callbacks: Any = None, *args: Any, **kwargs: Any) -> None:
        given = keras.tree.flatten(callbacks) if callbacks else []
        if not any(isinstance(callback, MemoryWatch) for callback in given):
            given = [MemoryWatch(log_dir, strict=True), *given]
        initialise(self, given, *args, **kwargs)

    callback_list.__init__ = watched


def _show_recordings(log_dir: Path) -> int:
    """Load every run, and tell how much was recorded."""
    sys.path.insert(0, str(_ROOT))
    import kerasmemwatch as kmw

    names = kmw.runs(log_dir)
    rows: Counter[str] = Counter()
    for name in names:
        rows.update(kmw.load(log_dir, name).samples["stage"].tolist())
    by_stage = ", ".join(f"{stage} {count:,}" for stage, count in sorted(rows.items()))
    print(f"\nRecorded: {len(names):,} runs with {rows.total():,} rows ({by_stage}); all of them load.")
    return rows.total()


def _summarise(watched: dict[str, str], num_rows: int) -> int:
    counts = Counter(watched.values())
    print("Watched:", ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()))
    return 0 if set(counts) <= {_PASSED, "skipped"} and num_rows else 1


def _compare(plain: dict[str, str], watched: dict[str, str], num_rows: int) -> int:
    broken = sorted(test for test, outcome in plain.items() if outcome == _PASSED)
    failing = sorted(test for test, outcome in plain.items() if outcome not in (_PASSED, "skipped"))
    for name, outcomes in (("Watched", watched), ("Plainly, of those that did not pass", plain)):
        counts = Counter(outcomes.values())
        print(f"{name}:", ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()))
    _show_list("These fail without us, too:", failing)
    _show_list("These pass plainly and fail with the watch:", broken)
    if not broken:
        print("Every test that passes plainly passes with the watch.")
    # Without a test that passes, or a row, nothing has been shown.
    return int(bool(broken) or _PASSED not in watched.values() or not num_rows)


def _show_list(title: str, tests: Sequence[str]) -> None:
    if tests:
        print(title, *tests, sep="\n  ")


if __name__ == "__main__":
    sys.exit(main())
