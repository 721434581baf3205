"""The pytest marker ``no_growth``: a test that it marks is called again and again, and fails if memory grows.

    @pytest.mark.no_growth(limit="64 KiB")
    def test_a_step(): ...

pytest loads this module wherever kerasmemwatch is installed. It stands beside the package, whose import chooses how
TensorFlow counts, so that only a test session with marked tests does that.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest

__all__: list[str] = []

_MARKER = "no_growth(repeats=100, limit='64 KiB', ignore=()): call the test again and again; fail if memory grows"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", _MARKER)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have TensorFlow count exactly before the first test, if a test is marked."""
    if any(item.get_closest_marker("no_growth") for item in items):
        import kerasmemwatch  # noqa: F401


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Call a marked test as the step of ``assert_no_growth``; its fixtures are set up once."""
    __tracebackhide__ = True
    marker = pyfuncitem.get_closest_marker("no_growth")
    if marker is None or inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    from kerasmemwatch.testing import assert_no_growth

    names = inspect.signature(pyfuncitem.obj).parameters
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in names if name in pyfuncitem.funcargs}
    assert_no_growth(lambda: pyfuncitem.obj(**arguments), *marker.args, **marker.kwargs)
    return True
