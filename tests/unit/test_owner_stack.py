"""Who is on top, on each thread, and what is noted of it."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

from kerasmemwatch.attribution.hooks import owner_stack
from kerasmemwatch.attribution.hooks.owner_stack import OwnerStack
from kerasmemwatch.records.owners import AFTER_LAYERS, BASE, LOSS, METRICS, OPTIMIZER, Frame

DENSE = Frame("a", "Dense", "forward")
INNER = Frame("a/b", "Dense", "forward")
UPDATE = Frame(OPTIMIZER, "", "update")


class Graph:
    """Stands for a function's graph: compared by identity, weakly referenced."""


@pytest.fixture
def stack() -> OwnerStack:
    made = OwnerStack()
    made.begin("train")
    return made


def test_who_was_pushed_last_is_on_top(stack: OwnerStack) -> None:
    tops = [stack.top]
    for frame in (DENSE, INNER):
        stack.push(frame)
        tops.append(stack.top)
    for _ in range(2):
        stack.pop()
        tops.append(stack.top)
    assert tops == [BASE, DENSE, INNER, DENSE, AFTER_LAYERS]


def test_after_the_update_come_metrics(stack: OwnerStack) -> None:
    stack.push(UPDATE)
    stack.pop()
    assert stack.top == Frame(METRICS, "", "update")


def test_a_step_of_its_own_owns_what_is_between_layers(stack: OwnerStack) -> None:
    own = Frame("gan", "GAN", "forward")
    stack.begin("train", own)
    assert stack.top == BASE
    stack.push(DENSE)
    stack.pop()
    assert stack.top == own


def test_between_two_gradients_the_last_ones_owner_adds_up(stack: OwnerStack) -> None:
    stack.push(Frame("", "", "backward"))
    assert stack.top == Frame(LOSS, "", "backward")
    stack.push(DENSE._replace(phase="backward"))
    stack.pop()
    assert stack.top == DENSE._replace(phase="backward")
    stack.pop()
    stack.push(Frame("", "", "backward"))
    assert stack.top == Frame(LOSS, "", "backward")


def test_a_layer_that_recomputes_is_backward(stack: OwnerStack) -> None:
    assert stack.layer("a", "Dense") == DENSE
    stack.push(Frame("b", "Dense", "backward"))
    stack.push(stack.layer("c", "Block"))
    assert stack.layer("a", "Dense") == DENSE._replace(phase="backward")


def test_the_innermost_layer_is_the_parent(stack: OwnerStack) -> None:
    assert stack.parent() == ""
    for frame in (DENSE, INNER, Frame(METRICS, "", "forward")):
        stack.push(frame)
    assert stack.parent() == "a/b"


def test_a_step_begins_with_an_empty_stack_after_one_that_was_left_half_way(stack: OwnerStack) -> None:
    stack.push(DENSE)
    stack.begin("test")
    assert (stack.top, stack.parent(), stack.stage) == (BASE, "", "test")


def test_threads_have_stacks_of_their_own(stack: OwnerStack) -> None:
    stack.push(DENSE)
    seen: list[Frame] = []

    def other() -> None:
        seen.append(stack.top)
        stack.push(INNER)
        seen.append(stack.top)

    thread = threading.Thread(target=other)
    with stack.timing() as log:
        thread.start()
        thread.join()
    assert seen == [BASE, INNER]
    assert stack.top == DENSE
    # Times are those of the thread whose step is captured.
    assert [frame for _, frame in log] == [DENSE]


def test_changes_of_the_top_are_noted_with_their_times(stack: OwnerStack) -> None:
    def failing() -> None:
        stack.push(INNER)
        try:
            raise ValueError("in a layer")
        finally:
            stack.pop()

    stack.push(DENSE)  # before: not noted
    assert not stack.is_timing
    with stack.timing() as log:
        assert stack.is_timing
        with pytest.raises(ValueError, match="in a layer"):
            failing()
    stack.pop()
    assert [frame for _, frame in log] == [DENSE, INNER, DENSE]
    times = [time for time, _ in log]
    assert times == sorted(times)
    assert not stack.is_timing


def test_who_stays_on_top_is_noted_once(stack: OwnerStack) -> None:
    backward = DENSE._replace(phase="backward")
    with stack.timing() as log:
        stack.push(Frame("", "", "backward"))
        for _ in range(3):
            # A tape differentiates a layer's operations one by one, and adds up between two.
            stack.push(backward)
            stack.pop()
        stack.push(INNER)
        stack.pop()
        stack.pop()
    assert [frame for _, frame in log] == [BASE, Frame(LOSS, "", "backward"), backward, INNER, backward, BASE]
    assert stack.top == BASE


def test_of_operations_of_one_name_the_newest_of_the_stage_comes_first(stack: OwnerStack) -> None:
    first, other_stage, second = Graph(), Graph(), Graph()
    stack.graph(first).ops.update({"x": DENSE, "only": DENSE})
    stack.graph(second).ops["x"] = INNER
    stack.stage = "test"
    stack.graph(other_stage).ops["x"] = UPDATE
    assert stack.ops("train") == {"x": (INNER, DENSE, UPDATE), "only": (DENSE,)}
    assert stack.ops("test")["x"] == (UPDATE, INNER, DENSE)


def test_the_same_owner_is_named_once(stack: OwnerStack) -> None:
    graphs = [Graph(), Graph(), Graph()]
    for graph, frame in zip(graphs, (DENSE, INNER, DENSE), strict=True):
        stack.graph(graph).ops["x"] = frame
    assert stack.ops("train") == {"x": (DENSE, INNER)}


def test_it_keeps_no_graph_alive(stack: OwnerStack) -> None:
    graph: Any = Graph()
    stack.graph(graph).ops["x"] = DENSE
    assert stack.graph(graph) is stack.graph(graph)
    reference = weakref.ref(graph)
    del graph
    gc.collect()
    assert reference() is None
    # A function may run when its graph's object is gone.
    assert stack.ops("train") == {"x": (DENSE,)}


def test_the_oldest_graphs_are_forgotten(stack: OwnerStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_stack, "_MAX_OPS", 10)
    graphs = [Graph() for _ in range(5)]
    for number, graph in enumerate(graphs):
        stack.graph(graph).ops.update({f"{number}_{op}": DENSE for op in range(4)})
    assert {name[0] for name in stack.ops("train")} == {"2", "3", "4"}
