"""Bytes for people, both ways."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kerasmemwatch.errors import InvalidArgumentError, InvalidTypeError
from kerasmemwatch.units import GIB, KIB, MIB, format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (0.25, "0.2 B"),
        (1023, "1023 B"),
        (KIB, "1.0 KiB"),
        (1023.94 * KIB, "1023.9 KiB"),
        (1023.96 * KIB, "1.0 MiB"),
        (MIB, "1.0 MiB"),
        (82_418_073, "78.6 MiB"),
        (GIB * 1024, "1.0 TiB"),
        (GIB * 1024 * 5000, "5000.0 TiB"),
        (-1536, "-1.5 KiB"),
        (None, "unknown"),
        (math.nan, "unknown"),
    ],
)
def test_formats_with_binary_prefixes(value: float | None, text: str) -> None:
    assert format_bytes(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "+0 B"), (2048, "+2.0 KiB"), (-2048, "-2.0 KiB"), (None, "unknown")])
def test_formats_with_a_sign(value: float | None, text: str) -> None:
    assert format_bytes(value, signed=True) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1, 1),
        (10**15, 10**15),
        ("2048", 2048),
        ("2048 B", 2048),
        (" 12 GiB ", 12 * GIB),
        ("12gib", 12 * GIB),
        ("0.5 KiB", 512),
        ("1 MB", 10**6),
        ("1 kB", 1000),
        ("2 TiB", 2 * 1024**4),
    ],
)
def test_parses_sizes(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "12 XiB", "-1", "-1 GiB", "1e3", "12 GiB GiB", "nan", "inf", "0", "0 MiB", 0, -5]
)
def test_refuses_what_is_no_positive_size(text: str | int) -> None:
    with pytest.raises(InvalidArgumentError, match=r"Expected limit .* Received: limit="):
        parse_bytes(text, name="limit")


@pytest.mark.parametrize("value", [True, 1.5, None, b"1", [1]])
def test_refuses_other_types(value: Any) -> None:
    with pytest.raises(InvalidTypeError, match=r"Expected limit .* Received: limit="):
        parse_bytes(value, name="limit")
