"""Private names of libraries: found where they are, or where an older version had them."""

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


def name_of(place: str, path: str = "Cache._size", **more: Any) -> Name:
    return Name(f"library_of_a_test.{place}", path, "Sizes are unknown.", **more)


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


@pytest.mark.parametrize("place", ["new", "old"])
def test_a_name_that_moved_is_found_where_an_older_version_has_it(library: Any, place: str) -> None:
    name = name_of(place, "Cache.size", formerly=("library_of_a_test.old", "Cache._size"))
    # Before anything asked for it: only the older place is loaded.
    assert name.if_loaded() == 3 and not name.is_missing
    assert name.get() == 3 and name.attribute == "_size" and repr(name).endswith("old.Cache._size")


def test_a_name_that_moved_is_found_in_its_new_place_first(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    new = ModuleType("library_of_a_test.new")
    new.Cache = type("Cache", (), {"size": 7})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, new.__name__, new)
    name = name_of("new", "Cache.size", formerly=("library_of_a_test.old", "Cache._size"))
    assert name.get() == 7 and repr(name).endswith("new.Cache.size")


def test_a_name_that_is_in_neither_place_is_missing_from_the_new_one(library: Any) -> None:
    name = name_of("new", "Cache.size", formerly=("library_of_a_test.old", "Cache.length"))
    error = name.error()
    assert error is not None and "library_of_a_test.new.Cache.size" in str(error) and "1.5" in str(error)
