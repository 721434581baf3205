"""Training loops as people write them, each in a process of its own: the report against an independent count."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from forks import run_forked

from kerasmemwatch.records.owners import NAMED_OWNERS

SCRIPTS = Path(__file__).parent / "scripts"
MODES = ("eager", "graph", "xla")
ENOUGH = 0.99
# Rows of the table that are no layer's.
NAMED = NAMED_OWNERS | {"unattributed"}


@functools.cache
def told(script: str, *arguments: str) -> dict[str, Any]:
    """What a script prints in its last line."""
    status, out, errors = run_forked(SCRIPTS / script, *arguments)
    assert status == 0, errors
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


# -- articles on why a tiny model runs out of memory -----------------------------------------------------------


# Each loop, each mode and each way once with each other.
ARTICLES = pytest.mark.parametrize(
    ("which", "mode", "added"),
    [
        ("function", "eager", "session"),
        ("function", "graph", "tape"),
        ("layer", "graph", "session"),
        ("layer", "xla", "tape"),
        ("data", "xla", "session"),
        ("data", "eager", "tape"),
    ],
)


@ARTICLES
def test_script_of_an_article(which: str, mode: str, added: str) -> None:
    found = told("article_loops.py", which, mode, added)
    assert found["steps"] == [[2, "train", mode], [10, "train", mode]]
    assert sum(found["by category"].values()) == found["requested"]
    head = (first := 5 if which == "layer" else 10) * 2 + 2
    # A raw variable is memory, and no optimizer of Keras' knows of it.
    layer = {"custom": [4 * 10 * first, 0]} if which == "layer" else {"dense": [4 * 110, 4 * 2 * 110]}
    head_name = "dense" if which == "layer" else "dense_1"
    layers = {path: sizes for path, sizes in found["layers"].items() if any(sizes)}
    assert layers == {**layer, head_name: [4 * head, 4 * 2 * head]}
    # The last step of a tape that is alone ends with the next, or never.
    assert found["rows"] >= 59


@ARTICLES
def test_coverage_of_an_article(which: str, mode: str, added: str) -> None:
    assert told("article_loops.py", which, mode, added)["coverage"] >= ENOUGH


# -- other loops -----------------------------------------------------------------------------------------------


def check(found: dict[str, Any], mode: str, *, enough: float = ENOUGH) -> None:
    """What holds of every loop."""
    assert found["samples"] == [1, 2, 3, 4, 5, 6]
    assert found["mode"] == mode
    assert sum(found["by category"].values()) == sum(found["by layer"].values()) == found["requested"]
    for path, (weights, optimizer, _) in found["expected"].items():
        assert found["layers"][path][:2] == [weights, optimizer], path
        assert found["classes"][path], path
    if mode != "xla":
        # Within a compiled block a gradient may share its variable's place; then it is none of its own.
        assert found["gradients"] == {path: sizes[2] for path, sizes in found["expected"].items()}
    assert sum(sizes[1] or 0 for sizes in found["layers"].values()) == found["optimizer"]
    # No layer but those of the loop's own models.
    others = {path for path in found["layers"] if path not in found["expected"]} - NAMED
    assert all(
        any(owner.startswith(f"{path}/") for owner in found["expected"])
        or not sum(size or 0 for size in found["layers"][path])
        for path in others
    ), others
    assert found["coverage"] >= enough


@pytest.mark.parametrize(
    ("which", "how", "mode"),
    [
        ("gan", "given", "graph"),
        *(("gan", "found", mode) for mode in MODES),
        ("pair", "given", "eager"),
        ("pair", "found", "graph"),
        ("accumulated", "found", "eager"),
        ("accumulated", "found", "graph"),
        ("module", "given", "graph"),
        ("module", "found", "eager"),
        ("module", "found", "xla"),
        ("bare", "found", "eager"),
        ("bare", "found", "graph"),
        *((which, "found", mode) for which in ("deep", "recomputed") for mode in MODES),
        ("mixed", "found", "eager"),
        ("mixed", "found", "graph"),
    ],
)
def test_loop(which: str, how: str, mode: str) -> None:
    check(told("custom_loops.py", which, mode, how), mode)


@pytest.mark.parametrize(
    ("which", "mode", "how"), [("gan", "graph", "found"), ("module", "xla", "found"), ("decorated", "graph", "given")]
)
def test_no_function_is_traced_again(which: str, mode: str, how: str) -> None:
    tracings = told("custom_loops.py", which, mode, how)["tracings"]
    assert tracings == told("custom_loops.py", which, mode, "without")["tracings"] != {}


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_module_whose_call_is_a_function(mode: str) -> None:
    """In eager mode the gradients are the loop's own; within another function those of the inner one have no name."""
    found = told("custom_loops.py", "decorated", mode, "given")
    assert found["coverage"] >= ENOUGH
    for path, (weights, _, gradients) in found["expected"].items():
        assert found["layers"][path][0] == weights
        if mode == "eager":
            assert found["gradients"][path] == gradients


@pytest.mark.parametrize("mode", MODES)
def test_paths_begin_with_the_models_names(mode: str) -> None:
    """As found while they run, and each optimizer's slots are at its own model's layers."""
    found = told("custom_loops.py", "gan", mode, "found")
    with_sizes = {path for path, sizes in found["layers"].items() if any(sizes)} - NAMED
    assert with_sizes == {"generator/first", "generator/last", "judge/first", "judge/last"}
    for path in with_sizes:
        weights, optimizer, _ = found["layers"][path]
        assert optimizer == weights * (2 if path.startswith("generator/") else 1)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_variables_that_gradients_are_added_up_in(mode: str) -> None:
    found = told("custom_loops.py", "accumulated", mode, "found")
    sums = sum(sizes[2] for sizes in found["expected"].values())
    # They are nobody's weights; the optimizer's state is exact beside them.
    assert found["by layer"]["other variables"] >= sums
    assert found["by category"]["weights"] == sum(sizes[0] for sizes in found["expected"].values())


@pytest.mark.parametrize("mode", MODES)
def test_what_is_recomputed_is_told_from_what_was_saved(mode: str) -> None:
    """Of a block of four layers one activation is saved, not four; the others are made again in the backward pass."""
    plain, recomputed = (told("custom_loops.py", which, mode, "found") for which in ("deep", "recomputed"))
    size = 1024 * 256 * 4
    blocks = [path for path in plain["expected"] if path.startswith(("one/", "two/"))]
    saved, again = ({path: found["activations"].get(path, 0) for path in blocks} for found in (plain, recomputed))
    assert saved == dict.fromkeys(blocks, size)
    assert all(again[path] == 0 for path in blocks if not path.endswith("part_3"))
    assert sum(again.values()) <= 2 * size
    for path in blocks:
        # What the plain one does in the backward pass, and the forward pass once more.
        backward = recomputed["phases"][path]["temporaries backward"]
        assert backward >= plain["phases"][path].get("temporaries backward", 0)
        assert "activations backward" not in recomputed["phases"][path]
    total = [found["by category"]["activations"] for found in (plain, recomputed)]
    # The last of the plain ones may be made as the first has gone; of the head and the loss a row has 4 bytes each.
    assert total[1] <= 2 * size < total[0] <= 8 * size + 2 * 1024 * 4
    if mode == "xla":  # else Python, or TensorFlow's threads, say when a tensor is made and let go
        assert recomputed["requested"] < plain["requested"]


def test_remat_scope() -> None:
    """In eager mode; Keras' scope fails with TensorFlow's functions where a layer is called with ``training``."""
    found = told("custom_loops.py", "remat", "eager", "found")
    check(found, "eager")
    blocks = [path for path in found["expected"] if path.startswith(("one/", "two/"))]
    assert all(not found["activations"][path] for path in blocks if not path.endswith("part_3"))
    assert all("activations backward" not in found["phases"][path] for path in blocks)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_replicas(mode: str) -> None:
    """Two replicas on one allocator: each has weights and slots of its own."""
    found = told("custom_loops.py", "mirrored", mode, "given")
    assert found["samples"] == [1, 2, 3, 4, 5, 6]
    assert sum(found["by category"].values()) == found["requested"]
    replica = 0
    for path, (weights, optimizer, gradients) in found["expected"].items():
        assert found["layers"][path][:2] == [weights, optimizer]
        # Of both replicas, all through the step.
        made = found["phases"][path]
        assert sum(size for place, size in made.items() if place.startswith("gradients")) == gradients
        replica += gradients // 2
    assert any("share one allocator" in note for note in found["notes"])
    # What the replicas do together is the optimizer's, and not the input pipeline's.
    assert found["phases"]["optimizer"]["temporaries update"] > found["phases"].get("input pipeline", {}).get(
        "inputs input", 0
    )
    # TensorFlow names nobody for the copies of gradients from one device to the other.
    assert found["by category"]["unattributed"] <= replica + 64


@pytest.mark.long
def test_own_train_step_with_a_tape_of_ours() -> None:
    for mode in MODES:
        found = told("own_step.py", mode)
        check(found, mode)
        assert found["tape"]["source"] == ("allocator" if mode == "eager" else "trace")
        if mode != "xla":
            gradients = sum(sizes[2] for sizes in found["expected"].values())
            assert found["tape"]["gradients_bytes"] == gradients
            assert found["tape"]["saved_for_backward_bytes"] >= 64 * 512 * 4
        assert found["losses"] == found["plain losses"]


@pytest.mark.long
@pytest.mark.parametrize(("name", "ways"), [("cnn", ("fit", "graph", "eager")), ("lstm", ("fit", "graph"))])
def test_fit_and_loops_agree(name: str, ways: tuple[str, ...]) -> None:
    """The same model, data and seed: what is a fact of the model is the same, however it is trained."""
    found = {way: told("three_ways.py", name, way) for way in ways}
    for way in ways:
        assert found[way]["coverage"] >= ENOUGH, way
        assert sum(found[way]["by category"].values()) == found[way]["requested"]
        # Whatever a way needs besides is told apart by phase.
        assert sum(found[way]["by phase"].values()) == found[way]["requested"]
        assert set(found[way]["by phase"]) <= {"between", "input", "forward", "backward", "update"}
        for fact in ("weights", "optimizer", "gradients"):
            assert found[way][fact] == found["fit"][fact], (way, fact)
        assert found[way]["weights"] == found[way]["expected weights"]
        assert found[way]["gradients"] == found[way]["expected gradients"]
