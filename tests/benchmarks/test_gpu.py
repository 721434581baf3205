"""``benchmarks/gpu.py --captures``: folders and files that hold no captured step."""

from __future__ import annotations

import importlib
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("tensorflow")
pytest.importorskip("rich")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_a_folder_without_captures_is_refused(gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--captures", str(tmp_path / "missing")]) == 1
    assert "Expected a folder" in said(capsys)
    (tmp_path / "jax-mlp.xplane.pb.xz").write_bytes(lzma.compress(b""))
    assert gpu.main(["--captures", str(tmp_path)]) == 1
    assert "1 files and no pair" in said(capsys)


@pytest.mark.parametrize(
    ("space", "notes", "wrong"),
    [
        (b"no xz", lzma.compress(b"{}"), "a whole file of xz"),
        (lzma.compress(b"\x0a\xff"), lzma.compress(b"{}"), "a profiler's XSpace"),
        (lzma.compress(b""), lzma.compress(b"{}"), "with planes"),
        (lzma.compress(b"\x0a\x00"), lzma.compress(b"{"), "as JSON"),
        (lzma.compress(b"\x0a\x00"), lzma.compress(b"[]"), "as JSON"),
        (lzma.compress(b"\x0a\x00"), lzma.compress(json.dumps({"step": 1}).encode()), "as JSON"),
        (lzma.compress(b"\x0a\x00"), lzma.compress(b"{}")[:-8], "a whole file of xz"),
    ],
    ids=["no-xz", "no-message", "no-planes", "half-json", "no-object", "no-step", "cut"],
)
def test_a_damaged_file_is_named(
    gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], space: bytes, notes: bytes, wrong: str
) -> None:
    (tmp_path / "cnn.xplane.pb.xz").write_bytes(space)
    (tmp_path / "cnn.json.xz").write_bytes(notes)
    assert gpu.main(["--captures", str(tmp_path)]) == 1
    error = said(capsys)
    assert wrong in error and str(tmp_path) in error
