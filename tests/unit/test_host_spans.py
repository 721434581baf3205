"""What the host was doing when an allocation was made."""

from __future__ import annotations

from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest

from kerasmemwatch.attribution.events.host_spans import AUTOTUNING, COPY, RUN, SpanReader, kind_of


def plane(*spans: tuple[str, int, int]) -> Any:
    """A thread's spans: name, begin and end in nanoseconds; an execution has its program behind a colon."""
    names, events = dict[str, int](), []
    strings = {10: "module_name", 11: "step.1", 12: "other.2"}
    for name, begin, end in spans:
        plain, _, module = name.partition(":=")
        key = names.setdefault(plain, len(names) + 1)
        stats = (
            [Message(metadata_id=10, ref_value={"step.1": 11, "other.2": 12}[module], str_value="")] if module else []
        )
        events.append(Message(metadata_id=key, offset_ps=begin * 1000, duration_ps=(end - begin) * 1000, stats=stats))
    return Message(
        event_metadata={key: Message(name=name) for name, key in names.items()},
        stat_metadata={key: Message(name=name) for key, name in strings.items()},
        lines=[Message(name="tf_Compute/1", timestamp_ns=5, events=events)],
    )


def at(found: SpanReader, *times_ns: int, thread: int = 3) -> list[tuple[str, str]]:
    codes = found.of(thread, (np.array(times_ns) + 5) * 1000)
    return [found.spans[code][:2] if code >= 0 else ("", "") for code in codes.tolist()]


def read(*spans: tuple[str, int, int]) -> SpanReader:
    found = SpanReader()
    found.read(plane(*spans), {"tf_Compute/1": 3})
    return found


def test_blocks_are_of_the_program_that_executes_next() -> None:
    found = read(
        ("GpuExecutable::ExecuteThunks:=other.2", 70, 90), ("Build buffer allocations", 50, 60),
        ("GpuExecutable::ExecuteThunks:=step.1", 30, 40), ("Build buffer allocations", 10, 20),
    )  # fmt: skip
    assert at(found, 9, 10, 20, 21, 55, 75) == [
        ("", ""),
        (RUN, "step.1"),
        (RUN, "step.1"),
        ("", ""),
        (RUN, "other.2"),
        ("", ""),
    ]
    assert at(found, 15, thread=4) == [("", "")]


def test_what_runs_while_algorithms_are_tried_is_a_part_of_the_trial() -> None:
    found = read(
        ("autotuner", 0, 100), ("create inputs", 5, 10), ("Build buffer allocations", 20, 30),
        ("GpuExecutable::ExecuteThunks:=step.1", 31, 40), ("Build buffer allocations", 110, 120),
    )  # fmt: skip
    assert at(found, 7, 25, 99, 105) == [(AUTOTUNING, "")] * 3 + [("", "")]
    assert at(found, 115) == [(RUN, "")]


def test_the_outer_of_two_spans_goes_on_when_the_inner_has_ended() -> None:
    found = read(("HLO Transforms:step", 0, 100), ("gemm-fusion-autotuner", 10, 20))
    assert at(found, 15, 50, 100, 101) == [(AUTOTUNING, "")] * 3 + [("", "")]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("autotuner", (AUTOTUNING, "")),
        ("gpu-conv-algorithm-picker", (AUTOTUNING, "")),
        ("Build buffer allocations", (RUN, "")),
        ("IteratorGetNext/_1:_Send", (COPY, "IteratorGetNext")),
        ("while/body/_1/IteratorGetNextAsOptional/_42:_Send", (COPY, "while/body/_1/IteratorGetNextAsOptional")),
        ("_send_model/a/Const_0:_Send", (COPY, "model/a/Const")),
        ("remotecall_target/_1:_HostSend", (COPY, "remotecall_target")),
        ("_Send input 0 from /device:CPU:0 to /device:GPU:0", (COPY, "")),
        ("MemoryAllocation", None),
        ("autotune-fusion-emitters", None),
        ("model/Send/MatMul:MatMul", None),
    ],
)
def test_a_name_says_what_a_span_is(name: str, kind: tuple[str, str] | None) -> None:
    assert kind_of(name) == kind
