"""Which tests run: a plain ``pytest`` leaves out long ones and most variants of slow ones.

CI runs a third of those, too. The commit's time chooses the third, so each is run by about every third commit.
``--variants all`` runs everything.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

__all__ = ["pytest_addoption", "pytest_collection_modifyitems", "pytest_configure"]

# The folders whose tests train models, start processes or open pages.
_SLOW = ("browser", "fault", "integration")
_SHARE = 8
_TURNS = 3


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--variants",
        choices=("some", "others", "all"),
        help="some: no long tests, and a few variants of slow ones (the default if no test or folder is named); "
        "others: the rest; all: both",
    )
    parser.addoption(
        "--turn",
        type=int,
        help=f"of the others, run those of one file in {_TURNS}, chosen by this number; {_TURNS} numbers in a row "
        "choose all files (default: all)",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Workers are told by this option, since they are called with arguments.
    if config.option.variants is None:
        config.option.variants = "all" if config.args_source is pytest.Config.ArgsSource.ARGS else "some"


@pytest.hookimpl(trylast=True)  # after -k and -m have had their choice
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    which, some = config.option.variants, set(_some(items))
    others = [item for item in items if item not in some]
    chosen = set() if which == "others" else some
    chosen |= set() if which == "some" else set(_of_turn(others, config.option.turn))
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]


def _of_turn(items: list[pytest.Item], turn: int | None) -> list[pytest.Item]:
    """The tests of each third file. What a file's tests share may take longer than they do, so files stay whole."""
    files = list(dict.fromkeys(_file(item) for item in items))
    chosen = files if turn is None else files[turn % _TURNS :: _TURNS]
    return [item for item in items if _file(item) in chosen]


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _some(items: Iterable[pytest.Item]) -> Iterator[pytest.Item]:
    """All tests but the long ones; of variants the first and, by the checksum of its name, one in eight.

    Where each variant takes little, all are taken: ``@pytest.mark.every``.
    """
    groups: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("long") is None:
            groups[item.nodeid.partition("[")[0]].append(item)
    for variants in groups.values():
        is_slow = not set(_SLOW).isdisjoint(Path(_file(variants[0])).parts)
        is_slow &= variants[0].get_closest_marker("every") is None
        for number, item in enumerate(variants):
            if number == 0 or not is_slow or zlib.crc32(item.nodeid.encode()) % _SHARE == 0:
                yield item
