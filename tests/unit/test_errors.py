"""Each error is ours and a builtin, so that either can be caught."""

from __future__ import annotations

import builtins
import pickle

import pytest

import kerasmemwatch
from kerasmemwatch import errors
from kerasmemwatch.errors import MemWatchError, ProbeUnavailableError

OURS = [getattr(errors, name) for name in errors.__all__ if name != "MemWatchError"]


def test_every_error_class_is_listed() -> None:
    defined = {value for value in vars(errors).values() if isinstance(value, type)}
    assert defined == {MemWatchError, *OURS}


@pytest.mark.parametrize("error", OURS)
def test_is_ours_and_a_builtin_that_says_more_than_exception(error: type[Exception]) -> None:
    assert issubclass(error, MemWatchError)
    builtin = [cls for cls in error.__mro__ if vars(builtins).get(cls.__name__) is cls]
    assert builtin[0] not in (Exception, BaseException)


def test_the_base_class_is_exported() -> None:
    assert kerasmemwatch.MemWatchError is MemWatchError


@pytest.mark.parametrize("error", [*(cls("why") for cls in OURS), ProbeUnavailableError("why", "remedy")])
def test_survives_pickling(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error)


def test_unavailable_tells_reason_and_remedy_apart() -> None:
    error = ProbeUnavailableError("No driver.", "Install it.")
    assert (error.reason, error.remedy, str(error)) == ("No driver.", "Install it.", "No driver. Install it.")
    assert str(ProbeUnavailableError("No driver.")) == "No driver."
