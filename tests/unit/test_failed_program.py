"""The XLA program that did not fit: found by its size, and what its block would have held. Real programs."""

from __future__ import annotations

import lzma
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kerasmemwatch.attribution.owners.name_scopes import frames_by_name
from kerasmemwatch.attribution.owners.op_owners import OpOwners
from kerasmemwatch.attribution.xla.buffer_assignment import open_module, requests
from kerasmemwatch.attribution.xla.hlo_proto import parse_hlo
from kerasmemwatch.attribution.xla.program_memory import live_bytes
from kerasmemwatch.out_of_memory import failed_program
from kerasmemwatch.out_of_memory.failed_program import FailedProgram, find_program
from kerasmemwatch.out_of_memory.last_moment import Known, last_moment
from kerasmemwatch.records.death import Death, Request
from kerasmemwatch.records.layer_memory import LayerMemory

PROTO = parse_hlo(lzma.decompress((Path(__file__).parents[1] / "data" / "cnn.hlo.xz").read_bytes()))
MODULE = open_module(PROTO)
BLOCK = max(MODULE.requests, key=lambda request: request.bytes)
NAMES = frames_by_name(MODULE.op_names, {"c1": "Conv2D", "c2": "Conv2D", "head": "Dense"})
OWNERS = OpOwners({name: (frame,) for name, frame in NAMES.items()})


class Programs:
    """Stands in for the programs of a capture, the newest last."""

    def __init__(self) -> None:
        smaller = tuple(replace(each, bytes=each.bytes // 2) for each in requests(PROTO))
        self.requests = {3: requests(PROTO), 5: requests(PROTO), 7: smaller}
        self.asked: list[int] = []

    def read(self, space: object) -> None:
        pass

    def opened(self, program_ids: list[int]) -> dict[int, object]:
        return {program_id: replace(MODULE, program_id=program_id) for program_id in program_ids}


class Capture:
    def start(self) -> None:
        pass

    def stop(self) -> bytes:
        return b"\n\x00"


@pytest.fixture(autouse=True)
def _captured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Space:
        @staticmethod
        def get() -> type:
            return type("XSpace", (), {"FromString": staticmethod(bytes)})

    monkeypatch.setattr(failed_program, "Capture", Capture)
    monkeypatch.setattr(failed_program, "Programs", Programs)
    monkeypatch.setattr(failed_program, "XPLANE", Space)


@pytest.mark.parametrize(
    "request_",
    [Request("program", BLOCK.bytes), Request("program", None, f"{BLOCK.bytes / 1024**2:.2f}MiB")],
)
def test_the_newest_program_of_the_size_is_found(request_: Request) -> None:
    found = find_program(request_, OWNERS)
    assert found is not None and found.module.program_id == 5 and found.block == BLOCK


def test_no_program_of_another_size() -> None:
    assert find_program(Request("program", BLOCK.bytes + 1), OWNERS) is None


def test_every_byte_of_the_fullest_moment_has_an_owner() -> None:
    rows = FailedProgram(MODULE, BLOCK, OWNERS).by_owner()
    assert sum(row.total_bytes or 0 for row in rows) == int(np.max(live_bytes(MODULE, BLOCK.index)))
    assert {"c1", "c2"} <= {row.path for row in rows}
    assert [row.total_bytes for row in rows] == sorted((row.total_bytes or 0 for row in rows), reverse=True)


def test_a_program_s_death_has_exact_bytes_and_the_batch_of_its_outputs() -> None:
    rows = next(
        shape[0] for shape in FailedProgram(MODULE, BLOCK, OWNERS).shapes if len(shape) == 4 and len(set(shape)) > 1
    )
    outputs = [(None, *shape[1:]) for shape in FailedProgram(MODULE, BLOCK, OWNERS).shapes if shape[:1] == (rows,)]
    program = FailedProgram(MODULE, BLOCK, OWNERS)
    known = Known(inventory=[LayerMemory("c1", "Conv2D", weights_bytes=96)], outputs=outputs, program=program)
    died = Death(3, "train", request=Request("program", None, "1.00MiB"), limit_bytes=2**30, in_use_bytes=196)
    found = last_moment(died, known)
    assert found.request.num_bytes == BLOCK.bytes and found.request.op == MODULE.name and found.mode == "xla"
    assert found.by_category["weights"] == 96 and found.batch == rows
    # Its block, the variables, and 100 bytes that were in use besides.
    assert found.peak_bytes == BLOCK.bytes + 96 + 100
    assert found.suggestions[0].fits and "XLA's plan" in found.figures_from
