"""Private names of libraries: found where they are, or missing with what is lost."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from kerasmemwatch.compat.names import Name
from kerasmemwatch.errors import MissingNameError


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A library that keeps ``Cache._size`` in ``library_of_a_test.old``."""
    package, old = ModuleType("library_of_a_test"), ModuleType("library_of_a_test.old")
    package.__path__ = []  # type: ignore[attr-defined]
    package.__version__ = "1.5"  # type: ignore[attr-defined]
    old.Cache = type("Cache", (), {"_size": 3})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, old.__name__, old)
    return old


def name_of(place: str) -> Name:
    return Name(f"library_of_a_test.{place}", "Cache._size", "Sizes are unknown.")


def test_a_name_is_found_in_its_module(library: Any) -> None:
    name = name_of("old")
    assert name.exists and not name.is_missing and name.get() == 3 and name.owner() is library.Cache
    name.set(4)
    assert name.if_loaded() == library.Cache._size == 4


def test_a_missing_name_says_what_is_lost() -> None:
    name = name_of("old")
    with pytest.raises(MissingNameError) as caught:
        name.get()
    assert "library_of_a_test.old.Cache._size" in str(caught.value) and caught.value.lost == "Sizes are unknown."
    assert name.is_missing and name.if_loaded() is None
