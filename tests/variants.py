"""Which variants of a parametrized test run: a plain ``pytest`` takes some of many, and CI all others after it."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

__all__ = ["pytest_addoption", "pytest_collection_modifyitems", "pytest_configure"]

# The folders whose tests train models, start processes or open pages.
_SLOW = ("browser", "fault", "integration")
_FEW, _SHARE = 3, 4


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--variants",
        choices=("some", "others", "all"),
        help="which variants of slow tests with more than three run: some (the default where no test or folder is "
        "named), all others and the tests marked as long, or all",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Workers are told by this option, since they are called with arguments.
    if config.option.variants is None:
        config.option.variants = "all" if config.args_source is pytest.Config.ArgsSource.ARGS else "some"


@pytest.hookimpl(trylast=True)  # after -k and -m have had their choice
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    which = config.option.variants
    if which == "all":
        return
    some = set(_some(items))
    chosen = [item for item in items if (item in some) == (which == "some")]
    config.hook.pytest_deselected(items=[item for item in items if (item in some) != (which == "some")])
    items[:] = chosen


def _some(items: Iterable[pytest.Item]) -> Iterator[pytest.Item]:
    """All tests but the long ones; of many variants the first and, by the checksum of its name, one of four.

    Where each variant takes little, all are taken: ``@pytest.mark.every``.
    """
    groups: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("long") is None:
            groups[item.nodeid.partition("[")[0]].append(item)
    for name, variants in groups.items():
        is_slow = not set(_SLOW).isdisjoint(Path(name.partition("::")[0]).parts)
        is_slow &= variants[0].get_closest_marker("every") is None
        for number, item in enumerate(variants):
            is_drawn = number == 0 or zlib.crc32(item.nodeid.encode()) % _SHARE == 0
            if is_drawn or len(variants) <= _FEW or not is_slow:
                yield item
