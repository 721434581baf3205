"""What a file may hold instead of a value: each is told by name, and none gets further."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_type_hints

import pytest

from kerasmemwatch.errors import RecordingFormatError
from kerasmemwatch.records.death import Death, Request, Suggestion
from kerasmemwatch.records.growth import Growth, LeakFinding, OwnRise
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.records.run import DeviceInfo, RunInfo, WorkerInfo
from kerasmemwatch.records.samples import Samples
from kerasmemwatch.records.timeline import TracedStep
from kerasmemwatch.storage.codecs.json_fields import MAX_JSON_BYTES, checked, dump_json, from_json, parse_json

ODD: tuple[Any, ...] = (
    None,
    "abc",
    "",
    [],
    {},
    [1],
    {"a": 1},
    True,
    math.nan,
    math.inf,
    -1,
    1.5,
    2**64,
    10**400,
    -(2**70),
)
# What is right, by annotation, of the odd values; the rest must be refused.
RIGHT: dict[Any, tuple[Any, ...]] = {
    str: ("abc", ""),
    bool: (True,),
    float: (math.nan, -1, 1.5),
    str | None: (None, "abc", ""),
    int | None: (None, -1),
    float | None: (None, math.nan, -1, 1.5),
    tuple[str, ...]: ([],),
    tuple[DeviceInfo, ...]: ([],),
    tuple[Mapping[str, Any], ...]: ([],),
    Mapping[str, str]: ({},),
    Mapping[str, Any]: ({}, {"a": 1}),
    WorkerInfo | None: (None,),
    tuple[Death, ...]: ([],),
    tuple[LeakFinding, ...]: ([],),
    tuple[OwnRise, ...]: ([],),
    tuple[Growth, ...]: ([],),
}


def same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and (left == right or left != left)


@pytest.mark.parametrize("cls", [RunInfo, DeviceInfo, LayerMemory, WorkerInfo])
def test_a_value_of_another_type_is_told_with_its_name(cls: type) -> None:
    whole: dict[str, Any] = {
        "RunInfo": {"name": "run", "created": 1.0},
        "DeviceInfo": {"name": "CPU:0"},
        "LayerMemory": {"path": "dense"},
        "WorkerInfo": {"cluster": "c", "type": "worker", "index": 0, "count": 2},
    }[cls.__name__]
    from_json(cls, whole)
    refused = 0
    for name, hint in get_type_hints(cls).items():
        never_negative = name.endswith(("_bytes", "index", "count"))
        right = RIGHT.get(hint, (-1,) if hint is int else None)
        assert right is not None, f"no right values are known for {hint}"
        for value in ODD:
            if any(same(value, each) for each in right) and not (never_negative and same(value, -1)):
                from_json(cls, {**whole, name: value})
                continue
            with pytest.raises(RecordingFormatError, match=name):
                from_json(cls, {**whole, name: value})
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("raw", [None, [], "x", 3, {}, {"created": 1.0}, {"name": "x"}])
def test_what_is_no_description_is_told(raw: object) -> None:
    with pytest.raises(RecordingFormatError):
        from_json(RunInfo, raw)


def test_every_annotation_of_what_is_stored_is_known() -> None:
    # A field of a new kind would otherwise be found out by a reader.
    for cls in (RunInfo, LayerMemory, DeviceInfo, WorkerInfo, Death, Request, Suggestion, TracedStep):
        for name, hint in get_type_hints(cls).items():
            if name != "timeline":
                try:
                    checked(hint, object(), name)
                except RecordingFormatError:
                    continue
                assert hint is Any
    with pytest.raises(TypeError, match="Expected the annotation"):
        checked(Samples.__init__, 1, "x")


def test_what_nobody_looks_into_is_not_deep() -> None:
    deep: Any = 1
    for _ in range(15):
        deep = [deep]
    assert checked(Any, deep, "x") == deep
    with pytest.raises(RecordingFormatError, match="levels"):
        checked(Any, [[deep]], "x")


@pytest.mark.parametrize("name", ["x" * 10_000, "\N{SNOWMAN}\x1b[31m"])
def test_messages_are_short(name: str) -> None:
    with pytest.raises(RecordingFormatError) as raised:
        from_json(RunInfo, {"name": "x", "created": 1.0, "versions": {name: 10**4000}})
    assert len(str(raised.value)) < 250


def test_json_comes_back() -> None:
    value = {"a": [1, None, "\N{SNOWMAN} \ud800"], "b": {"c": 1.5}}
    assert parse_json(dump_json(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 200_000,
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b'{"a":[' + b"[]," * 300_000 + b"1]}",
        b'{"a":"' + b"x" * MAX_JSON_BYTES + b'"}',
        b'{"a":' + b"9" * 5000 + b"}",
        b"[1]",
        b"",
        b"\xff",
        '{"a":"\N{SNOWMAN}"}'.encode(),
    ],
    ids=range(9),
)
def test_json_that_is_too_much_raises_our_error(text: bytes) -> None:
    with pytest.raises(RecordingFormatError):
        parse_json(text)


def test_what_no_reader_takes_is_not_written() -> None:
    with pytest.raises(RecordingFormatError, match="at most"):
        dump_json({"a": [0] * 300_000})
