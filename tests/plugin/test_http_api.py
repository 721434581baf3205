"""The document of the routes, ``http_api.md``, says what they do: no more, no less."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asking import PREFIX, Ask, asking, client, traced
from fakes import append_payload, device_probe, write_run
from loaders import python_provider
from runs import run_info, samples, traced_steps

import kerasmemwatch
from kerasmemwatch.recording import Recording
from kerasmemwatch.records.growth import LeakFinding, TraceLink
from kerasmemwatch.storage.sinks.tensorboard import RUN_TAG
from kerasmemwatch.tensorboard_plugin import views
from kerasmemwatch.tensorboard_plugin.assets import ASSETS
from kerasmemwatch.tensorboard_plugin.plugin import MemoryPlugin
from kerasmemwatch.tensorboard_plugin.views import VIEWS

DOCUMENT = (Path(kerasmemwatch.__file__).parent / "tensorboard_plugin" / "http_api.md").read_text()
# What a type of the document is in JSON.
TYPES: dict[str, Any] = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "true": bool,
    "string or integer": (str, int),
    "figure": dict,
}
Rows = list[list[str]]


def tables(text: str = DOCUMENT) -> Iterator[tuple[str, Rows]]:
    """The heading of each table's first column, and its rows."""
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines())
        yield head[0].strip("| "), [[cell.strip("| ") for cell in row] for row in rows]


def table(heading: str, text: str = DOCUMENT) -> Rows:
    [rows] = [rows for found, rows in tables(text) if found == heading]
    return rows


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def keys(heading: str, text: str = DOCUMENT) -> dict[str, tuple[str, bool]]:
    """Each key of a table of keys: its type, and whether it may be left out."""
    return {names(key)[0]: (kind, key.endswith("*")) for key, kind, _ in table(heading, text)}


def documented_section(kind: str) -> str:
    [text] = re.findall(rf"^### `{kind}`\n(.*?)(?=^##|\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    return str(text)


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Three runs: with traced steps, without, and with a damaged description."""
    probes = (device_probe(lambda batch: [1, batch, 1], ["GPU:0"], devices=[{"name": "GPU:0"}]),)
    traced(tmp_path, "traced", traced_steps(), probes=probes)
    write_run(tmp_path, "plain", batches=30)
    write_run(tmp_path, "damaged", batches=3)
    append_payload(tmp_path / "damaged", RUN_TAG, b"nonsense")
    return asking(python_provider(tmp_path))


@pytest.fixture
def answers(ask: Ask) -> dict[str, list[Any]]:
    """What each view answers about a traced run, another one, and both."""
    asked = (["traced"], ["plain"], ["traced", "plain"])
    found = {view: [ask(view, run=runs) for runs in asked] for view in VIEWS}
    assert all(status == 200 for answered in found.values() for status, _ in answered)
    return {view: [content for _, content in answered] for view, answered in found.items()}


def assert_as_documented(values: list[dict[str, Any]], documented: dict[str, tuple[str, bool]]) -> None:
    """Each value has the keys that it must have and no others, of their types; all that it may have, some have."""
    assert values
    assert {key for value in values for key in value} == set(documented)
    for value in values:
        assert set(value) >= {key for key, (_, optional) in documented.items() if not optional}
        for key, item in value.items():
            kind = documented[key][0]
            assert isinstance(item, list if kind.startswith("array of") else TYPES[kind]), (key, item)


def test_its_routes_are_the_plugin_s() -> None:
    routes = {names(route)[0] for route, *_ in table("route")}
    assert routes == set(MemoryPlugin(_NoProvider()).get_plugin_apps()) - set(ASSETS)


class _NoProvider:
    data_provider = None


class _Asked(dict[str, str]):
    """Notes what is looked up."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(values)
        self.read = set[str]()

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)


@pytest.mark.parametrize("view", VIEWS)
def test_its_parameters_are_those_that_are_read(view: str) -> None:
    asked = _Asked({"from": "1", "to": "4"})
    recording = Recording(run_info(), samples(30), (), traced_steps())
    VIEWS[view]({"a": recording, "b": recording}, asked)
    documented = {names(row[0])[0]: set(names(row[1])) for row in table("route")}
    assert documented[f"/{view}"] == asked.read | {"run"}
    assert documented[f"/{view}"] <= {name for row in table("parameter") for name in names(row[0])}


def test_its_list_of_runs_is_what_is_listed(ask: Ask) -> None:
    status, content = ask("runs")
    assert status == 200 and set(content) == {"runs"}
    assert_as_documented(content["runs"], keys("key of a run"))


def test_its_sections_are_what_is_shown(answers: dict[str, list[Any]]) -> None:
    found = defaultdict(list)
    leak = LeakFinding("native", "", None, None, None, "", "", trace=(TraceLink("held outside Python", "suspect"),))
    leaking = Recording(replace(run_info(), leaks=(leak,)), samples(30), (), ())
    answers["growth"].append(VIEWS["growth"]({"a": leaking}, {}))
    for view, contents in answers.items():
        for content in contents:
            assert set(content) == ({"figure"} if view in ("moments", "buffers") else {"sections"})
            for section in content.get("sections", []):
                found[section["kind"]].append({key: value for key, value in section.items() if key != "kind"})
    assert set(found) == set(re.findall(r"^### `(\w+)`", DOCUMENT, re.MULTILINE))
    for kind, values in found.items():
        assert_as_documented(values, keys("key", documented_section(kind)))
    assert_as_documented([tile for tiles in found["tiles"] for tile in tiles["tiles"]], keys("key of a tile"))
    columns = [column for each in found["table"] for column in each["columns"]]
    assert_as_documented(columns, keys("key of a column"))


def test_its_order_of_sections_is_the_views_own(answers: dict[str, list[Any]]) -> None:
    for views_cell, words in table("view"):
        main, _, otherwise = words.partition(";")
        expected = re.findall(r"tiles|figure|table|notes|choice", main)
        shown = [[section["kind"] for section in content["sections"]] for content in answers[names(views_cell)[0][1:]]]
        assert expected in shown
        others = [each for each in shown if each != expected]
        assert all(each == re.findall(r"notes", otherwise) or each == expected[:1] for each in others)
        assert bool(others) == ("if" in words)


def test_its_columns_are_those_of_the_tables(answers: dict[str, list[Any]]) -> None:
    shown = {
        (f"/{view}", re.sub(r"^run\d+$", "run<n>", column["key"]), column["kind"])
        for view, contents in answers.items()
        for content in contents
        for section in content.get("sections", [])
        for column in section.get("columns", [])
    }
    documented = {
        (view, re.sub(r"^run\d+$", "run<n>", key), kind)
        for views_cell, keys_cell, kind, _ in table("table")
        for view in names(views_cell)
        for key in names(keys_cell)
    }
    assert documented == shown


def test_its_statuses_are_those_that_are_answered(ask: Ask, tmp_path: Path, monkeypatch: Any) -> None:
    asked = {
        ask("overview", run="traced")[0],
        ask("overview")[0],
        ask("overview", run="no such run")[0],
        client(python_provider(tmp_path)).post(f"{PREFIX}/runs").status_code,
        ask("overview", run="damaged")[0],
    }
    monkeypatch.setattr(views, "overview", None)
    asked.add(ask("overview", run="traced")[0])
    assert {int(row[0]) for row in table("status")} == asked


@pytest.mark.parametrize(
    ("change", "to"),
    [
        ("| `label` | string | What it is. |\n", ""),
        ("| `tone` | string |", "| `tone` | integer |"),
        ("`tone`", "`tint`"),
    ],
)
def test_a_document_that_says_something_else_is_noticed(answers: dict[str, list[Any]], change: str, to: str) -> None:
    assert change in DOCUMENT
    [first, *_] = answers["overview"]
    tiles = first["sections"][0]["tiles"]
    assert_as_documented(tiles, keys("key of a tile"))
    with pytest.raises(AssertionError):
        assert_as_documented(tiles, keys("key of a tile", DOCUMENT.replace(change, to)))
