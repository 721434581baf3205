"""What TensorFlow keeps for ever is counted as it is made, with the user's line, and hooks go when nobody counts."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from kerasmemwatch.compat.names import Local, Name
from kerasmemwatch.leaks.evidence import makings
from kerasmemwatch.leaks.evidence.makings import Made, Makings

SOURCE = """
def internal_operation_seed():
    return 42

class LookupInterface:
    def __init__(self, key_dtype, value_dtype=None):
        if key_dtype == "bad":
            raise TypeError("no such type")
        self.key_dtype = key_dtype

class EagerFunc:
    def __init__(self, func, Tout, is_grad_func):
        self.func = func

def anonymous_name():
    return "anonymous"

def variable_handle(name, graph_mode=False):
    return anonymous_name()

def other_resource():
    return anonymous_name()

class Context:
    def call_function(self, name, inputs, num_outputs):
        return name

tape_cache = {}
"""


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A library that makes such things, as TensorFlow does."""
    module: Any = ModuleType("a_library")
    exec(compile(SOURCE, "/usr/lib/a_library.py", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, "a_library", module)
    cache = Name("a_library", "tape_cache", "")
    monkeypatch.setattr(makings, "TAPE_CACHE", cache)
    monkeypatch.setattr(makings, "VARIABLE_NAME", Local("a_library", "variable_handle.name", ""))
    hooks = (
        (Name("a_library", "LookupInterface.__init__", ""), makings.LOOKUP_TABLE),
        (Name("a_library", "internal_operation_seed", ""), makings.OPERATION_SEED),
        (Name("a_library", "EagerFunc.__init__", ""), makings.EAGER_PY_FUNCTION),
        (Name("a_library", "anonymous_name", ""), makings.ANONYMOUS_NAME),
    )
    monkeypatch.setattr(makings, "CALL_FUNCTION", Name("a_library", "Context.call_function", ""))
    monkeypatch.setattr(makings, "ONEDNN", Name("a_library", "is_onednn", ""))
    monkeypatch.setattr(makings, "EAGER_TENSOR", SimpleNamespace(is_that_of=lambda value: hasattr(value, "dtype")))
    monkeypatch.setattr(makings, "_HOOKS", {own: makings._HOOKS[theirs] for own, theirs in hooks})
    monkeypatch.setattr(makings, "_hooks", makings._Hooks())
    monkeypatch.setattr(makings, "is_user_file", lambda path: path == __file__)
    yield module
    gc.collect()


def counting(*, step: int = 0) -> Makings:
    made = Makings()
    made.open()
    made.mark(step)
    return made


def test_all_kinds_are_counted_with_the_line_that_makes_most(library: Any) -> None:
    made = counting()
    library.LookupInterface("string")
    for number in range(3):
        library.LookupInterface("int")
        assert library.internal_operation_seed() == 42
        library.EagerFunc(None, [], False)
        library.EagerFunc(None, [], True)  # a gradient
        library.variable_handle(f"state_{number}")
        library.variable_handle("state")
        library.other_resource()
        library.tape_cache[b"token%d" % number] = (None, [], SimpleNamespace())
    made.mark(12)
    found = made.since(0)
    assert (found.tables, found.names, found.seeds, found.py_functions, found.tapes) == (4, 4, 3, 3, 3)
    assert found.steps == 12 and found.tape_bytes == 0
    place = found.places["tables"]
    assert place.file == __file__ and place.source == 'library.LookupInterface("int")'
    assert found.places["names"].source == 'library.variable_handle(f"state_{number}")'
    made.close()


def test_only_what_was_made_since_a_step_counts(library: Any) -> None:
    made = counting()
    for _ in range(9):
        library.LookupInterface("at the start")
    for step in (10, 20):
        made.mark(step)
        library.LookupInterface("later")
    made.mark(30)
    late = made.since(15)
    assert (late.tables, late.steps) == (2, 20)
    assert late.places["tables"].source == 'library.LookupInterface("later")'
    assert made.since(0).tables == 11
    made.close()


def test_marks_are_few_however_long_it_runs(library: Any) -> None:
    made = counting()
    for step in range(1, 1000):
        library.LookupInterface("")
        made.mark(step)
    assert len(made._marks) <= makings._MAX_MARKS
    assert made.since(0) != Made() and (made.since(0).tables, made.since(0).steps) == (999, 999)
    assert 0 < made.since(900).tables == made.since(900).steps < 300
    made.close()


def test_the_functions_are_restored_when_the_last_one_stops(library: Any) -> None:
    before = dict(vars(library)), library.LookupInterface.__init__
    first, second = counting(), counting()
    assert library.internal_operation_seed is not before[0]["internal_operation_seed"]
    first.close()
    first.close()
    library.internal_operation_seed()
    second.mark(1)
    assert second.since(0).seeds == 1
    del second
    gc.collect()
    assert dict(vars(library)) == before[0] and library.LookupInterface.__init__ is before[1]


def test_a_patch_of_someone_else_stays(library: Any) -> None:
    made = counting()
    ours = library.internal_operation_seed
    library.internal_operation_seed = lambda: ours() + 1
    theirs = library.internal_operation_seed
    made.close()
    assert library.internal_operation_seed is theirs and theirs() == 43
    again = counting()
    theirs()
    again.mark(1)
    assert again.since(0).seeds <= 1
    again.close()


def test_what_is_made_while_closed_is_unknown(library: Any) -> None:
    made = counting()
    made.close()
    library.LookupInterface("")
    made.mark(5)
    made.open()
    made.mark(6)
    assert made.since(0) == Made()
    library.LookupInterface("")
    made.mark(7)
    assert (made.since(0).tables, made.since(0).steps) == (1, 1)
    made.close()


def test_an_error_passes_without_our_function_in_its_stack(library: Any) -> None:
    made = counting()
    with pytest.raises(TypeError, match="no such type") as caught:
        library.LookupInterface("bad")
    assert not any(makings.__file__ == str(entry.path) for entry in caught.traceback)
    made.close()


def test_shapes_of_calls_are_counted_from_when_they_are_asked_for(library: Any) -> None:
    def tensor(*shape: int, is_data: bool = True) -> Any:
        return SimpleNamespace(shape=shape, dtype=SimpleNamespace(is_numpy_compatible=is_data))

    context, original = library.Context(), library.Context.call_function
    made = counting()
    context.call_function("step", [tensor(1)], 1)
    made.count_shapes()
    made.count_shapes()
    for size in (1, 2, 2, 3):
        assert context.call_function("step", [tensor(size), tensor(size, is_data=False), "other"], 1) == "step"
    # What a function captures comes after its arguments, and is not looked at.
    context.call_function("step", [tensor(3), *[tensor(9, is_data=False)] * 5, tensor(7)], num_outputs=1)
    made.mark(10)
    # A function's first call has no shape that is new to it.
    assert (made.since(0).calls, made.since(0).shapes, made.since(0).has_onednn) == (5, 2, False)
    place = made.since(0).places["shapes"]
    assert place.file == __file__ and place.source.startswith('assert context.call_function("step"')
    made.close()
    assert library.Context.call_function is original
    made.count_shapes()
    assert library.Context.call_function is original


def test_shapes_of_some_calls_are_counted_before_memory_is_known_to_grow(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(size: int) -> None:
        tensor = SimpleNamespace(shape=(size,), dtype=SimpleNamespace(is_numpy_compatible=True))
        library.Context().call_function("step", [tensor], 1)

    original = library.Context.call_function
    made = counting()
    made.count_some_shapes()
    assert library.Context.call_function is original  # without oneDNN nobody asks
    monkeypatch.setattr(makings, "_has_onednn", lambda: True)
    made.count_some_shapes()
    for size in range(70):
        call(size)
    made.mark(70)
    assert (made.since(0).calls, made.since(0).shapes) == (10, 9)
    made.count_shapes()
    for size in range(100, 110):
        call(size)
    made.mark(80)
    assert (made.since(0).calls, made.since(0).shapes) == (20, 19)
    made.close()
    assert library.Context.call_function is original
    made = counting()
    made.count_some_shapes()
    for size in range(14):
        call(size)
    made.mark(90)
    assert made.since(0).calls == 2
    made.close()


def test_where_the_library_is_not_loaded_nothing_is_counted(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "a_library")
    made = counting()
    made.mark(1)
    assert made.since(0) == Made(steps=1)
    made.close()
