"""Recordings damaged at random, with fixed seeds: an error of ours or what is right, and little memory.

First bytes are damaged, which checksums must find; then values within files whose checksums are right.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damages import (
    Files,
    StubProvider,
    assert_nothing_wrong,
    at_most,
    damaged,
    header_of,
    payloads,
    record,
    rewritten,
    with_header,
    write,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerasmemwatch.errors import MemWatchError
from kerasmemwatch.recording import Recording, load, runs
from kerasmemwatch.storage.files.journal import JOURNAL_NAME
from kerasmemwatch.storage.files.signal_mark import MARK_NAME
from kerasmemwatch.tensorboard_plugin.queries import Queries
from kerasmemwatch.tensorboard_plugin.views import VIEWS, run_list
from kerasmemwatch.units import MIB

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is limited by Linux")
MOST_BYTES = 256 * MIB
# As many as show that a check is gone. With ``FUZZ=12`` twelve times as many, as CI has it: 3,000.
TIMES = int(os.environ.get("FUZZ", "1"))
NUM_DAMAGES, BATCH, NUM_ODD = 250 * TIMES, 125, 40 * TIMES


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, Recording]:
    return record(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("first", range(0, NUM_DAMAGES, BATCH))
def test_random_damage_gives_an_error_of_ours_or_what_is_right(whole: Any, tmp_path: Path, first: int) -> None:
    files, recorded = whole
    results: dict[str, int] = {"whole": 0, "partial": 0, "error": 0}
    for seed in range(first, first + BATCH):
        write(tmp_path / "run", damaged(files, seed))
        try:
            with at_most(MOST_BYTES):
                found = load(tmp_path, "run")
                assert runs(tmp_path) == ["run"]
        except MemWatchError:
            results["error"] += 1
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        assert_nothing_wrong(found, recorded)
        is_whole = found.samples.num_samples == recorded.samples.num_samples
        results["whole" if is_whole else "partial"] += 1
        if seed % 10 == 0:
            shown(found)
    # It would find nothing if nothing were damaged, or nothing could be read.
    assert results["partial"] > BATCH / 10 and results["whole"] + results["partial"] > BATCH / 2, results


def shown(recording: Recording) -> None:
    """All that a recording offers."""
    assert str(recording.report) and recording.report.text(everything=True)
    json.dumps(recording.report.to_dict())
    for view in VIEWS.values():
        view({"a": recording, "b": recording}, {})


def test_the_checks_find_what_is_wrong(whole: Any, tmp_path: Path) -> None:
    files, recorded = whole
    write(tmp_path / "run", files)
    found = load(tmp_path, "run")
    assert_nothing_wrong(found, recorded)
    found.samples["host_rss_bytes"][3] += 1
    with pytest.raises(AssertionError, match="host_rss_bytes"):
        assert_nothing_wrong(found, recorded)
    with pytest.raises(MemoryError), at_most(MOST_BYTES):
        np.ones(2 * MOST_BYTES // 8)


# -- damages with the right checksums ------------------------------------------------------------------------------

_NUMBERS = st.sampled_from([0, 1, -1, 7, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, -(2**63), 1.5, 1e300, -0.0])
_TEXT = st.text(st.characters(), max_size=8)  # surrogates, too; without them, Hypothesis needs a second to start
_ODD = st.recursive(
    st.none() | st.booleans() | _NUMBERS | st.floats() | _TEXT | st.sampled_from(["train", "GPU:0", "\ud800"]),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(_TEXT, inside, max_size=3),
    max_leaves=6,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value within a JSON value."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*at, key))


def changed(value: Any, at: tuple[Any, ...], to: Any) -> Any:
    if not at:
        return to
    result = copy.copy(value)
    result[at[0]] = changed(value[at[0]], at[1:], to)
    return result


@given(data=st.data())
@settings(
    max_examples=NUM_ODD,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_odd_values_in_right_files(whole: Any, tmp_path: Path, data: Any) -> None:
    files, _ = whole
    [name] = [name for name in files if name not in (JOURNAL_NAME, MARK_NAME)]
    parts = payloads(files[name])
    tag = data.draw(st.sampled_from(sorted(parts)))
    header, body = header_of(parts[tag])
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.sampled_from([at for at in places(header) if len(at) < 5]))
        header = changed(header, at, data.draw(_ODD))
    new_tag = (
        tag.rpartition("/")[0] + "/" + data.draw(st.sampled_from(["9" * 5000, "x", ""])) if data.draw(_RARELY) else tag
    )
    events = rewritten(files[name], {tag: (new_tag, with_header(header, body))})
    write(tmp_path / "run", {**files, name: events})
    try:
        with at_most(MOST_BYTES):
            found = load(tmp_path, "run")
            assert (np.diff(found.samples["step"]) > 0).all()
            assert runs(tmp_path) == ["run"]
            shown(found)
    except MemWatchError:
        pass
    queries = Queries(StubProvider(events))
    [listed] = run_list(queries, None, "")["runs"]
    assert listed["name"] == "run"
    problem = None
    try:
        queries.answer(None, "", ["run"], lambda found: VIEWS["overview"](found, {}))
    except MemWatchError as error:
        problem = error
    assert problem is None or "'run'" in str(problem)


_RARELY = st.sampled_from([False] * 9 + [True])
