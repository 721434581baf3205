"""Which worker a process is, and what its runs are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kerasmemwatch.analysis.merge_workers import group_name
from kerasmemwatch.environment import worker
from kerasmemwatch.errors import RecordingFormatError
from kerasmemwatch.records.run import RunInfo, WorkerInfo
from kerasmemwatch.storage.codecs.row_codec import decode_json, encode_json
from kerasmemwatch.storage.codecs.run_codec import decode_run, encode_run
from kerasmemwatch.storage.run_reader import is_run_dir
from kerasmemwatch.storage.run_store import open_store

TWO = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}


def config(cluster: Any = TWO, type: Any = "worker", index: Any = 0) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": type, "index": index}})}


def found(cluster: Any = TWO, type: Any = "worker", index: Any = 0) -> WorkerInfo:
    info = worker(config(cluster, type, index))
    assert info is not None
    return info


@pytest.mark.parametrize(
    ("cluster", "type", "index", "name", "count"),
    [
        (TWO, "worker", 0, "worker:0", 2),
        (TWO, "worker", 1, "worker:1", 2),
        (TWO, "worker", "1", "worker:1", 2),
        ({"chief": ["a:1"], "worker": ["b:1"]}, "chief", 0, "chief:0", 2),
        ({"chief": ["a:1"], "worker": ["b:1"]}, "worker", 0, "worker:0", 2),
        ({"master": ["a:1"], "worker": ["b:1", "c:1"]}, "worker", 1, "worker:1", 3),
        # What serves parameters records nothing.
        ({"chief": ["a:1"], "worker": ["b:1"], "ps": ["c:1", "d:1"]}, "chief", 0, "chief:0", 2),
        ({"worker": {"0": "a:1", "4": "b:1"}}, "worker", 4, "worker:4", 2),
    ],
)
def test_a_worker_is_told_by_its_task(cluster: Any, type: str, index: Any, name: str, count: int) -> None:
    info = found(cluster, type, index)
    assert (info.name, info.count) == (name, count)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"TF_CONFIG": ""},
        {"TF_CONFIG": "{"},
        {"TF_CONFIG": "[" * 100_000},
        *({"TF_CONFIG": raw} for raw in ("null", "1", "[]", "{}", '"x"', '{"cluster": {}}', '{"task": {"type": "w"}}')),
        {"TF_CONFIG": '{"cluster": null, "task": null}'},
        config({"worker": ["a:1"]}),
        config({"chief": ["a:1"]}, "chief"),
        config(index=2),
        config(index=-1),
        config(index=None),
        config(index=True),
        config(index=0.0),
        config(index="one"),
        config(index="9" * 5000),
        config(type="ps"),
        config(type="evaluator"),
        config(type="../../etc"),
        config(type=["worker"]),
        config(type=None),
        config({"worker": ["a:1", "b:1"], "ps": ["c:1"]}, "ps"),
        config({"x/../y": ["a:1", "b:1"]}, "x/../y"),
        config({"worker": "127.0.0.1:1"}),
        config({"worker": 2}),
        config({"worker": {"zero": "a:1", "one": "b:1"}}),
        config(["a:1", "b:1"]),
    ],
)
def test_what_is_no_worker_of_several_is_none(environ: dict[str, str]) -> None:
    assert worker(environ) is None


def test_the_cluster_is_the_same_for_all_its_tasks_and_no_others() -> None:
    mixed = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    turned = dict(reversed(mixed.items()))
    ids = {found(mixed, "chief").cluster, found(turned, "worker", 0).cluster, found(mixed, "worker", 1).cluster}
    assert len(ids) == 1
    assert len(ids | {found(TWO).cluster, found({"worker": ["127.0.0.1:2", "127.0.0.1:1"]}).cluster}) == 3


# -- stored ----------------------------------------------------------------------------------------------------


def test_a_worker_is_stored_with_its_run() -> None:
    run = RunInfo("run", 1.0, worker=found(index=1))
    assert decode_run(encode_run(run, ()))[0] == run


def test_a_run_of_an_older_version_has_none() -> None:
    raw = decode_json(encode_run(RunInfo("run", 1.0), ()))
    assert raw["run"].pop("worker") is None
    assert decode_run(encode_json(raw))[0] == RunInfo("run", 1.0)


@pytest.mark.parametrize(
    "raw",
    [
        {},
        [],
        "worker:0",
        {"cluster": "c", "type": "worker", "index": "0", "count": 2},
        {"cluster": "c", "type": "worker", "index": 0, "count": None},
        {"cluster": "c", "type": 1, "index": 0, "count": 2},
        {"cluster": ["c"], "type": "worker", "index": 0, "count": 2},
    ],
)
def test_what_is_no_worker_is_a_damaged_description(raw: Any) -> None:
    described = {"run": {"name": "run", "created": 1.0, "worker": raw}, "layers": []}
    with pytest.raises(RecordingFormatError, match="Expected a description of a run"):
        decode_run(encode_json(described))


def test_what_a_later_version_adds_to_it_is_passed_over() -> None:
    raw = {"cluster": "c", "type": "worker", "index": 0, "count": 2, "rack": 7}
    run, _ = decode_run(encode_json({"run": {"name": "run", "created": 1.0, "worker": raw}, "layers": []}))
    assert run.worker == WorkerInfo("c", "worker", 0, 2)


# -- names -----------------------------------------------------------------------------------------------------


def names(log_dir: Path, run_name: str | None, times: int = 1) -> list[str]:
    """The names that two workers get, one after the other."""
    return [
        open_store(str(log_dir), run_name, created=0.0, worker=found(index=index)).name
        for _ in range(times)
        for index in (0, 1)
    ]


def test_workers_have_runs_of_their_own(tmp_path: Path) -> None:
    assert names(tmp_path, None) == ["memwatch-19700101T000000Z-0-worker-0", "memwatch-19700101T000000Z-0-worker-1"]
    assert names(tmp_path, None)[1] == "memwatch-19700101T000000Z-1-worker-1"
    assert names(tmp_path, "mine") == ["mine-worker-0", "mine-worker-1"]
    assert names(tmp_path, "mine", 2) == ["mine-2-worker-0", "mine-2-worker-1", "mine-3-worker-0", "mine-3-worker-1"]
    assert open_store(None, "mine", created=0.0, worker=found()).name == "mine-worker-0"


@pytest.mark.parametrize("run_name", ["x" * 255, "é" * 127, "caf\udce9", "[red]x[/]", "-worker-0", "a\nb"])
def test_odd_names_are_directories_too(tmp_path: Path, run_name: str) -> None:
    first, second = names(tmp_path, run_name)
    assert first.endswith("-worker-0") and second.endswith("-worker-1")
    assert first[:-1] == second[:-1] and run_name.startswith(first.removesuffix("-worker-0"))
    assert is_run_dir(str(tmp_path / first)) and is_run_dir(str(tmp_path / second))
    assert group_name(RunInfo(first, 0.0, worker=found())) == first.removesuffix("-worker-0")


def test_a_directory_without_a_run_is_used(tmp_path: Path) -> None:
    (tmp_path / "mine-worker-0").mkdir()
    assert names(tmp_path, "mine") == ["mine-worker-0", "mine-worker-1"]


def test_without_several_workers_names_are_as_ever(tmp_path: Path) -> None:
    assert open_store(str(tmp_path), "mine", created=0.0, worker=None).name == "mine"
