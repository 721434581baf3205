"""The tab's routes, asked as a browser would, on recordings that either loader of TensorBoard has read."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from asking import PREFIX, asking, client, sections, traced
from fakes import append_payload, event_file, newer, write_run
from loaders import python_provider, reload
from runs import HOSTILE, partial_report, traced_steps
from tensorboard.plugins import base_plugin
from timelines import realistic_step, step, timeline

from kerasmemwatch.recording import Recording
from kerasmemwatch.storage.codecs.row_codec import encode_json
from kerasmemwatch.storage.codecs.step_codec import encode_step
from kerasmemwatch.storage.sinks.tensorboard import RUN_TAG, SAMPLES_TAG, STEPS_TAG
from kerasmemwatch.tensorboard_plugin import assets
from kerasmemwatch.tensorboard_plugin.assets import ASSETS
from kerasmemwatch.tensorboard_plugin.loader import MemoryLoader
from kerasmemwatch.tensorboard_plugin.views import VIEWS

SECTIONED = [name for name in VIEWS if name not in ("moments", "buffers")]


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    """Two runs, the second of which has traced steps."""
    write_run(tmp_path, "plain", batches=30)
    traced(tmp_path, "traced", traced_steps())
    return tmp_path


def test_runs_are_listed(serve: Any, log_dir: Path) -> None:
    status, content = serve(log_dir, 2)("runs")
    assert status == 200
    assert {run["name"] for run in content["runs"]} == {"plain", "traced"}
    assert all(run["created"] > 0 and not run["problem"] for run in content["runs"])


@pytest.mark.parametrize("view", SECTIONED)
def test_every_view_answers(serve: Any, log_dir: Path, view: str) -> None:
    ask = serve(log_dir, 2)
    for names in (["traced"], ["plain"], ["traced", "plain"]):
        for theme in ("light", "dark"):
            status, content = ask(view, run=names, theme=theme)
            assert status == 200, content
            assert content["sections"]
            for section in sections(content, "figure"):
                assert section["text"] == section["figure"]["layout"]["meta"]["summary"]
            for section in sections(content, "table"):
                assert all(len(row) == len(section["columns"]) for row in section["rows"])


def test_the_peak_s_table_sums_to_the_peak(serve: Any, log_dir: Path) -> None:
    status, content = serve(log_dir, 2)("peak", run="traced")
    [table] = sections(content, "table")
    keys = [column["key"] for column in table["columns"]]
    total = sum(row[keys.index("total_bytes")] for row in table["rows"])
    highest = max(step.timeline.requested_bytes.sum() for step in traced_steps())
    assert status == 200
    assert 0 < total <= highest
    parts = [index for index, key in enumerate(keys) if key.endswith("_bytes") and key != "total_bytes"]
    for row in table["rows"]:
        assert sum(row[index] or 0 for index in parts) == row[keys.index("total_bytes")]


def test_a_window_of_a_step(serve: Any, log_dir: Path) -> None:
    ask = serve(log_dir, 2)
    number = traced_steps()[0].step
    for route in ("moments", "buffers"):
        status, content = ask(route, run="traced", step=number, **{"from": 1, "to": 4}, width=300)
        assert status == 200 and content["figure"]["data"]
    assert ask("buffers", run="traced", step=number, **{"from": "x", "to": 4})[0] == 400


def test_what_is_added_is_shown_at_the_next_request(tmp_path: Path) -> None:
    write_run(tmp_path, "run", batches=30)
    provider = python_provider(tmp_path)
    ask = asking(provider)
    assert not sections(ask("timeline", run="run")[1], "figure")
    seen = ask("runs")[1]
    append_payload(tmp_path / "run", f"{STEPS_TAG}000000", encode_step(traced_steps()[0]))
    assert ask("runs")[1] == seen  # TensorBoard has not looked at the file again
    reload(provider)
    assert len(sections(ask("timeline", run="run")[1], "figure")) == 2
    assert ask("runs")[1] != seen


def drawn(figure: Any) -> Any:
    """Of a figure what plotly writes; the rest is values that it hands back, or that tie parts together."""
    if isinstance(figure, dict):
        return {
            key: drawn(value) for key, value in figure.items() if key not in ("customdata", "ids", "parents", "meta")
        }
    return [drawn(each) for each in figure] if isinstance(figure, list) else figure


def test_a_layer_s_name_is_text(serve: Any, tmp_path: Path) -> None:
    lines = [(1000 * (i + 1), -1, 4, name, "weights", "between", "") for i, name in enumerate(HOSTILE)]
    traced(tmp_path, "run", [step(timeline(lines, 4))])
    ask = serve(tmp_path)
    for view in SECTIONED[:4]:
        status, content = ask(view, run="run")
        assert status == 200
        for section in sections(content, "figure"):
            text = json.dumps(drawn(section["figure"]))
            assert "<img" not in text and "<script" not in text and "<svg" not in text
    [table] = sections(ask("peak", run="run")[1], "table")
    assert {row[0] for row in table["rows"]} >= set(HOSTILE)  # as they are: the page makes text of them


def test_a_partial_count_is_told_before_the_tiles_and_is_no_headline() -> None:
    report = partial_report()
    recordings = {"run": Recording(report.run, report.samples, (), ())}
    first, tiles, *_ = VIEWS["overview"](recordings, {})["sections"]
    assert (first["kind"], first["notes"]) == ("notes", ["CPU:0 is counted in part: do this."])
    assert tiles["tiles"][0]["label"] == "Device peak (partial)"
    [section] = VIEWS["timeline"](recordings, {})["sections"]
    assert "no traced step had a larger one" in section["notes"][0]


@pytest.mark.parametrize("name", ["nope", "../traced", "/etc/passwd", "traced\0", "", "<script>"])
def test_a_run_that_is_not_there(serve: Any, log_dir: Path, name: str) -> None:
    status, content = serve(log_dir, 2)("overview", run=name)
    assert status == 404
    assert "Expected the name of a run" in content["error"]


def test_no_run_is_named(log_dir: Path) -> None:
    assert asking(python_provider(log_dir))("overview")[0] == 400


@pytest.mark.parametrize("payload", [b"", b"nonsense", newer(99, of_rows=True)])
@pytest.mark.parametrize("tag", [f"{SAMPLES_TAG}000099", f"{STEPS_TAG}000099"])
def test_a_damaged_part_is_noted_and_the_rest_shown(serve: Any, log_dir: Path, tag: str, payload: bytes) -> None:
    append_payload(log_dir / "traced", tag, payload)
    status, content = serve(log_dir, 2)("overview", run="traced")
    assert status == 200
    [notes] = sections(content, "notes")
    assert any(tag in note for note in notes["notes"])


def test_a_damaged_description_leaves_other_runs_alone(serve: Any, log_dir: Path) -> None:
    append_payload(log_dir / "plain", RUN_TAG, b"nonsense")
    ask = serve(log_dir, 2)
    problems = {run["name"]: run["problem"] for run in ask("runs")[1]["runs"]}
    assert problems["plain"] and not problems["traced"]
    assert ask("overview", run="plain")[0] == 422
    assert ask("overview", run="traced")[0] == 200


@pytest.mark.parametrize("created", [None, "abc", [], {}, 2**64, -1])
def test_an_odd_description_is_named_and_leaves_other_runs_alone(log_dir: Path, created: Any) -> None:
    odd = encode_json({"run": {"name": "plain", "created": created}, "layers": []})
    append_payload(log_dir / "plain", RUN_TAG, odd)
    ask = asking(python_provider(log_dir))
    status, content = ask("runs")
    assert status == 200
    problems = {run["name"]: run["problem"] for run in content["runs"]}
    assert "created" in problems["plain"] and not problems["traced"]
    for view in SECTIONED:
        assert ask(view, run="traced")[0] == 200
        for names in (["plain"], ["traced", "plain"]):
            status, content = ask(view, run=names)
            assert status == 422 and "The run 'plain' cannot be read" in content["error"]


def test_parts_that_would_take_all_memory_are_noted(log_dir: Path) -> None:
    header = {"version": 1, "layout": [], "rows": 3 * 10**8, "whole": []}
    text = json.dumps(header).encode()
    bomb = zlib.compress(len(text).to_bytes(4, "little") + text)
    append_payload(log_dir / "traced", f"{SAMPLES_TAG}000099", bomb)
    status, content = asking(python_provider(log_dir))("overview", run="traced")
    [notes] = sections(content, "notes")
    assert status == 200 and any(f"{SAMPLES_TAG}000099 cannot be read" in note for note in notes["notes"])


def test_a_file_that_is_cut_off(serve: Any, log_dir: Path) -> None:
    path = event_file(log_dir / "traced")
    path.write_bytes(path.read_bytes()[:-100])
    ask = serve(log_dir, 2)
    assert ask("overview", run="traced")[0] == 200
    assert ask("overview", run="plain")[0] == 200


def test_an_empty_log_dir(tmp_path: Path) -> None:
    assert asking(python_provider(tmp_path))("runs") == (200, {"runs": []})


def test_fifty_runs(tmp_path: Path) -> None:
    for number in range(50):
        write_run(tmp_path, f"run-{number:02d}", batches=3)
    ask = asking(python_provider(tmp_path))
    names = [run["name"] for run in ask("runs")[1]["runs"]]
    assert len(names) == 50
    assert ask("compare", run=names[:4])[0] == 200


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
@pytest.mark.parametrize("route", ["runs", "overview", "index.js"])
def test_only_get(log_dir: Path, method: str, route: str) -> None:
    response = getattr(client(python_provider(log_dir)), method)(f"{PREFIX}/{route}")
    assert response.status_code == 405
    assert response.headers["Allow"] == "GET"


@pytest.mark.parametrize(
    "route", ["nothing", "static/index.js", "../plugins_listing", "index.js/..", "%2e%2e/setup.cfg"]
)
def test_other_routes_are_not_there(log_dir: Path, route: str) -> None:
    response = client(python_provider(log_dir)).get(f"{PREFIX}/{route}")
    assert response.status_code == 404 or "kerasmemwatch" not in response.get_data(as_text=True)


@pytest.mark.parametrize("route", sorted(ASSETS))
def test_assets(log_dir: Path, route: str) -> None:
    response = client(python_provider(log_dir)).get(f"{PREFIX}{route}")
    assert response.status_code == 200
    assert response.headers["Content-Type"].partition(";")[0] == ASSETS[route].content_type
    assert len(response.get_data()) > 100


@pytest.mark.parametrize("route", sorted(ASSETS))
def test_a_browser_asks_each_time_whether_an_asset_has_changed(log_dir: Path, route: str) -> None:
    # Kept for an hour, the scripts of an older version would ask the routes of a newer one.
    asked = client(python_provider(log_dir))
    first = asked.get(f"{PREFIX}{route}", headers={"Accept-Encoding": "gzip"})
    assert "no-cache" in first.headers["Cache-Control"] and "max-age" not in first.headers["Cache-Control"]
    again = asked.get(f"{PREFIX}{route}", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.get_data()) == (304, b"")
    other = asked.get(f"{PREFIX}{route}", headers={"If-None-Match": 'W/"an older version"'})
    assert other.status_code == 200 and other.headers["ETag"] == first.headers["ETag"]


def test_assets_differ_by_their_content(log_dir: Path) -> None:
    assert len({asset.etag() for asset in ASSETS.values()}) == len(ASSETS)


def test_an_upgrade_under_a_running_tensorboard_changes_no_script(log_dir: Path, monkeypatch: Any) -> None:
    asked = client(python_provider(log_dir))
    monkeypatch.setattr(assets.resources, "files", lambda package: log_dir / "of another version")
    for route, asset in ASSETS.items():
        if asset.package.startswith("kerasmemwatch"):
            assert asked.get(f"{PREFIX}{route}").status_code == 200


def test_payloads_of_a_large_step_stay_small(tmp_path: Path) -> None:
    traced(tmp_path, "run", [realistic_step(100_000)])
    asked = client(python_provider(tmp_path))
    for view in VIEWS:
        response = asked.get(f"{PREFIX}/{view}", query_string={"run": "run"})
        assert response.status_code == 200
        assert len(response.get_data()) < 2**20, view


def test_a_fault_of_ours_is_an_error_in_the_page(log_dir: Path, monkeypatch: Any, caplog: Any) -> None:
    from kerasmemwatch.tensorboard_plugin import views

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(views, "overview", broken)
    status, content = asking(python_provider(log_dir))("overview", run="plain")
    assert status == 500
    assert "secret" not in content["error"]
    assert "secret" in caplog.text


def test_the_loader_steps_aside(caplog: Any) -> None:
    assert MemoryLoader().load(base_plugin.TBContext(data_provider=None)) is None
    [record] = caplog.records
    assert "The Memory tab is left out" in record.getMessage()
