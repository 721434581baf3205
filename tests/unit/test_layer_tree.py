"""Paths as the lines of a tree."""

from __future__ import annotations

import pytest

from kerasmemwatch.analysis.steps.layer_tree import tree_lines


def drawn(*paths: str) -> list[str]:
    return [". " * line.depth + line.label for line in tree_lines(paths)]


def test_a_flat_model_is_a_list() -> None:
    assert drawn("b", "a", "c") == ["b", "a", "c"]
    assert drawn() == []


def test_what_holds_several_has_a_line_of_its_own() -> None:
    assert drawn("a/b/x", "a/b/y", "a/c/x", "d") == ["a", ". b", ". . x", ". . y", ". c/x", "d"]


def test_what_holds_one_other_shares_its_line_unless_it_is_asked_for() -> None:
    assert drawn("a/b/c") == ["a/b/c"]
    assert drawn("a", "a/b/c") == ["a", ". b/c"]
    assert drawn("a/b/c", "a/b") == ["a/b", ". c"]


def test_a_layer_far_from_its_siblings_is_put_beside_them() -> None:
    assert drawn("a/x", "b", "a/y") == ["a", ". x", ". y", "b"]


def test_every_path_has_one_line() -> None:
    paths = ["", "/", "a/", "a//b", "a", "a/b", "x", "x"]
    assert sorted(line.path for line in tree_lines(paths)) == sorted(set(paths))


@pytest.mark.parametrize("depth", [1, 5000])
def test_any_depth(depth: int) -> None:
    path = "/".join("a" * depth)
    assert drawn(path, f"{path}/b") == [path, ". b"]
