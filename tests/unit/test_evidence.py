"""Who holds what, from which name, without TensorFlow: arrays, and a class of the test's in place of tensors."""

from __future__ import annotations

import functools
import gc
import inspect
import itertools
import sys
import threading
import weakref
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from kerasmemwatch.attribution.variables.live_objects import hashable
from kerasmemwatch.leaks.evidence import heap as heap_module
from kerasmemwatch.leaks.evidence import roots as roots_module
from kerasmemwatch.leaks.evidence.chains import find_chain, place_of
from kerasmemwatch.leaks.evidence.collector import Moment, collect
from kerasmemwatch.leaks.evidence.containers import Contents, containers
from kerasmemwatch.leaks.evidence.cycles import find_cycle
from kerasmemwatch.leaks.evidence.heap import Heap
from kerasmemwatch.leaks.evidence.models import follow_models
from kerasmemwatch.leaks.evidence.piles import class_name, count_classes, find_piles
from kerasmemwatch.leaks.evidence.places import Place, adding_line, calling_line, chained_lines
from kerasmemwatch.leaks.evidence.plain import estimated_bytes
from kerasmemwatch.leaks.evidence.roots import Root, untracked_locals, user_roots
from kerasmemwatch.probes.heap import heap_bytes_reader

kept_by_the_module: list[Any] = []


class Tensor:
    def __init__(self, size: int) -> None:
        self.size = size
        self.shape = SimpleNamespace(rank=1, as_list=lambda: [size])
        self.dtype = SimpleNamespace(name="float32")


@pytest.fixture(autouse=True)
def unfrozen() -> None:
    """This module's classes and functions are visited, which are frozen after a test where TensorFlow is loaded."""
    gc.unfreeze()


def look(value: Any) -> tuple[Contents | None, dict[int, Contents]]:
    with Heap({Tensor, np.ndarray}, untracked_locals(sys._getframe(1))) as heap:
        found, _, live = containers(heap, Tensor, lambda each: 4 * each.size, lambda found: False)
        live.clear()
        return found.get(id(value)), found


@pytest.mark.parametrize("kind", [list, deque, lambda items: dict(enumerate(items))])
def test_a_container_of_arrays_is_found(kind: Any) -> None:
    values = kind([np.ones(1000) for _ in range(20)])
    found, _ = look(values)
    assert found is not None
    assert (found.kind, found.count, found.num_bytes, found.like) == ("array", 20, 20 * 8000, "float64[1000]")


@pytest.mark.parametrize(("most", "is_found"), [(20, False), (21, True), (None, True)])
def test_nothing_piles_up_in_a_deque_that_is_full(most: int | None, is_found: bool) -> None:
    for items in ([np.ones(1000) for _ in range(20)], [{"image": np.ones(1000)} for _ in range(20)]):
        values = deque(items, maxlen=most)
        found, _ = look(values)
        assert (found is not None) == is_found
        assert found is None or found.most == most
    texts = deque((b"%d" % number * 5000 for number in range(20)), maxlen=most)
    found, _ = look(texts)
    assert (found is not None) == is_found and (found is None or found.most == most)


def test_arrays_of_one_shape_that_one_container_holds_are_not_told_twice() -> None:
    full = deque([np.ones((3, 500)) for _ in range(20)], maxlen=20)
    together = tuple(np.ones((4, 500)) for _ in range(20))
    _, found = look(full)
    assert not [each for each in found.values() if each.like in ("float64[3, 500]", "float64[4, 500]")] and together


def test_arrays_of_one_shape_are_found_without_a_container() -> None:
    first = node = [np.ones((2, 500)), None]
    for _ in range(19):
        node[1] = [np.ones((2, 500)), None]
        node = node[1]  # type: ignore[assignment]
    _, found = look(first)
    [contents] = [each for each in found.values() if each.like == "float64[2, 500]" and not each.container]
    assert (contents.kind, contents.count, contents.num_bytes) == ("array", 20, 20 * 8000)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda array: (array, 1),
        lambda array: {"loss": array},
        lambda array: [array],
        lambda array: SimpleNamespace(value=array),
        lambda array: (1, {"a": [array]}),
    ],
    ids=["tuple", "dict", "list", "object", "deep"],
)
def test_things_that_hold_arrays_are_counted_in_their_container(wrap: Any) -> None:
    values = [wrap(np.ones(1000)) for _ in range(20)]
    found, _ = look(values)
    assert found is not None
    assert (found.count, found.num_bytes) == (20, 20 * 8000)
    assert found.within == type(values[0]).__name__


def test_a_container_of_plain_values_is_found_with_an_estimate() -> None:
    log = [{"step": step, "text": "x" * 951} for step in range(2000)]
    found, _ = look(log)
    assert found is not None and (found.kind, found.count, found.like) == ("object", 2000, "dict")
    assert found.num_bytes == pytest.approx(2000 * (1000 + 28 + sys.getsizeof(log[0])), rel=0.05)


def test_the_parts_of_values_parts_are_counted() -> None:
    kept = {(number, tuple(float(each) for each in range(number, number + 500))) for number in range(1000)}
    found, _ = look(kept)
    assert found is not None and found.num_bytes == pytest.approx(1000 * 500 * (8 + 24), rel=0.1)


def test_exceptions_keep_the_arrays_of_the_frames_that_they_went_through() -> None:
    def fail(level: int) -> None:
        array = np.ones(1000)
        if level:
            fail(level - 1)
        raise ValueError(array.shape)

    errors = []
    for _ in range(20):
        try:
            fail(1)
        except ValueError as error:
            errors.append(error)
    found, _ = look(errors)
    assert found is not None and (found.count, found.within) == (20, "ValueError")


def _bank(more: Any, bank: list[Any] = [], *, named: dict[str, Any] = {}) -> None:  # noqa: B006
    bank.append(more)
    named[str(len(named))] = more


def _taking() -> Any:
    taken = []
    while True:
        taken.append(np.ones(7))
        yield None


def test_a_default_value_is_named_by_its_parameter() -> None:
    _bank(np.ones(3))
    for value, name in ((_bank.__defaults__[0], "bank"), (_bank.__kwdefaults__["named"], "named")):  # type: ignore[index]
        with Heap(set()) as heap:
            way = find_chain(heap, value, {}, {})
        assert (way.expression, way.is_default) == (name, True) and way.steps[-2].class_name == "_bank"
        place = place_of(way)
        assert place is not None and place.source.startswith(name)


def test_a_generators_variable_is_named() -> None:
    generator = _taking()
    next(generator)
    value = generator.gi_frame.f_locals["taken"]
    generator.gi_frame.f_locals.clear()
    with Heap(set()) as heap:
        way = find_chain(heap, value, {}, {})
    place = place_of(way)
    assert way.root is not None and (way.root.kind, way.root.name, way.root.scope) == ("generator", "taken", "_taking")
    assert way.expression == "taken" and place is not None and place.source == "taken.append(np.ones(7))"


def test_functions_that_close_over_arrays_are_counted_in_their_container() -> None:
    def closing(array: Any) -> Any:
        return lambda: array

    values = [closing(np.ones(1000)) for _ in range(20)]
    found, _ = look(values)
    assert found is not None
    assert (found.count, found.num_bytes, found.within) == (20, 20 * 8000, "function")


def test_tensors_are_told_from_arrays_and_views_from_copies() -> None:
    tensors = [Tensor(10) for _ in range(9)]
    found, _ = look(tensors)
    assert found is not None and (found.kind, found.num_bytes, found.like) == ("tensor", 360, "float32[10]")
    views = [np.ones(1000)[:1] for _ in range(9)]
    found, _ = look(views)
    assert found is not None and (found.num_bytes, found.view_bytes) == (9 * 8000, 9 * 7992)
    whole = np.ones(1000)
    shared = [whole[index:] for index in range(9)]
    found, _ = look(shared)
    assert found is not None and found.num_bytes == 8000


def test_a_memory_map_is_no_memory(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "data", np.float64, "w+", shape=(90,))
    found, _ = look([np.asarray(mapped[index : index + 10]) for index in range(9)])
    assert found is None or found.num_bytes == 0


def test_the_largest_single_array_of_each_holder_is_found() -> None:
    trainer = SimpleNamespace(curve=np.ones((400, 1000)), other=np.ones((300, 1000)), count=np.ones(3))
    _, found = look([])
    [alone] = [each for each in found.values() if each.like == "float64[400, 1000]"]
    assert (alone.kind, alone.container, alone.num_bytes) == ("array", "ndarray", 3_200_000)
    assert alone.length == 400
    assert not {"float64[300, 1000]", "float64[3]"} & {each.like for each in found.values()}
    assert trainer


def test_a_few_long_texts_are_found() -> None:
    kept, short = ["x" * 5000 for _ in range(20)], ["x" * 50 for _ in range(20)]
    found, every = look(kept)
    assert found is not None and (found.kind, found.count, found.like) == ("object", 20, "str")
    assert found.num_bytes > 20 * 5000 and id(short) not in every


def test_what_most_bytes_are_like_is_told() -> None:
    found, _ = look([{"weights": np.ones(1000), "bias": np.ones(10), "scale": np.ones(10)} for _ in range(20)])
    assert found is not None and (found.count, found.within, found.like) == (20, "dict", "float64[1000]")


def test_a_look_keeps_nothing_alive() -> None:
    values = [Tensor(10) for _ in range(9)]
    references = [weakref.ref(each) for each in values]
    look(values)
    values.clear()
    gc.collect()
    assert not any(reference() for reference in references)


def chain_of(value: Any, registries: dict[int, str] | None = None) -> tuple[Any, str]:
    with Heap(()) as heap:
        found = find_chain(heap, value, user_roots(sys._getframe(1)), registries or {})
    return found.root, "".join(step.access for step in found.steps)


def test_a_global_is_named() -> None:
    kept_by_the_module.append(value := Tensor(1))
    try:
        root, way = chain_of(value)
        assert (root.kind, root.name, way) in (
            ("global", "kept_by_the_module", "[0]"),
            ("local", "value", ""),  # this function holds it, too
        )
        del value
        root, way = chain_of(kept_by_the_module)
        assert (root.kind, root.name, root.file) == ("global", "kept_by_the_module", __file__)
    finally:
        kept_by_the_module.clear()


class Registry:
    seen: ClassVar[list[Any]] = []


def test_a_class_attribute_is_named_as_such() -> None:
    with Heap(()) as heap:
        found = find_chain(heap, Registry.seen, user_roots(sys._getframe()), {})
    assert found.root is not None and found.root.file == __file__
    assert found.expression == "Registry.seen"

    class Inner:
        seen: ClassVar[list[Any]] = []

    kept, made = Inner.seen, [Inner()]
    del Inner
    roots = {key: root for key, root in user_roots(sys._getframe()).items() if key not in (id(kept), id(made))}
    with Heap(()) as heap:
        found = find_chain(heap, kept, roots, {})
    assert found.root is not None and (found.root.kind, found.root.file) == ("class", __file__)
    assert found.expression == "Inner.seen" and made


class Trainer:
    def __init__(self) -> None:
        self.history: list[Any] = [{"loss": Tensor(1)}]


def test_the_way_goes_by_attributes_items_and_keys() -> None:
    def inner() -> tuple[Any, str]:
        return chain_of(next(each for each in gc.get_objects() if type(each) is Tensor))

    trainer = Trainer()
    gc.collect()
    root, way = inner()
    assert (root.kind, root.name) == ("local", "trainer")
    assert way == ".history[0]['loss']"
    assert trainer.history


def test_what_a_registry_keeps_is_said_to_be_kept_by_it() -> None:
    registry = {"a": [Tensor(1)]}
    holder = SimpleNamespace(value=registry)
    target = id(registry["a"][0])

    def inner() -> tuple[Any, str]:
        return chain_of(next(each for each in gc.get_objects() if id(each) == target), {id(registry): "the registry"})

    del holder.value
    root, _ = inner()
    # A name of the user's goes first.
    assert root.name in ("registry", "the registry")


class Odd:
    """Everything that Python lets a class say of its objects raises, as with a proxy whose server is gone."""

    def __init__(self) -> None:
        vars(Odd)["__dict__"].__get__(self)["kept"] = [Tensor(10) for _ in range(9)]

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __hash__(self) -> int:
        return 1

    def fail(self, *_: Any) -> Any:
        raise RuntimeError

    __eq__ = __str__ = __repr__ = __bool__ = __len__ = __iter__ = __sizeof__ = fail  # type: ignore[assignment]


class OddList(list[Any]):
    __len__ = __iter__ = __sizeof__ = Odd.fail  # type: ignore[assignment]


class OddDict(dict[Any, Any]):
    __len__ = __iter__ = __sizeof__ = items = values = keys = Odd.fail  # type: ignore[assignment]


class OddModule:
    def __getattr__(self, name: str) -> Any:
        raise ImportError(name)


@pytest.mark.parametrize(
    ("make", "way"),
    [
        (Odd, "kept.kept"),
        (lambda: {Odd(): 1}, ".kept"),
        (lambda: {3: Odd()}, "kept[3].kept"),
        (lambda: OddList(Tensor(10) for _ in range(9)), "kept"),
        (lambda: OddDict((number, Tensor(10)) for number in range(9)), "kept"),
    ],
    ids=["object", "key", "value", "list", "dict"],
)
def test_a_look_runs_no_code_of_the_objects(make: Any, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "odd_module", OddModule())  # type: ignore[misc]
    kept = make()
    with Heap({Tensor}) as heap:
        found, _, live = containers(heap, Tensor, lambda each: 4 * each.size, lambda found: False)
        roots = user_roots(sys._getframe())
        [key] = (key for key, each in found.items() if (each.kind, each.count) == ("tensor", 9))
        assert find_chain(heap, live[key], roots, {}).expression.endswith(way)
        live.clear()
    assert kept is not None and estimated_bytes([Odd()] * 9) > 0


def closing_over() -> Any:
    kept = [Tensor(1)]
    return lambda: kept


def test_a_way_may_go_by_a_closure() -> None:
    function = closing_over()
    with Heap(()) as heap:
        chain = find_chain(heap, function()[0], user_roots(sys._getframe()), {})
    assert chain.root is not None and (chain.root.kind, chain.root.name) == ("local", "function")
    assert [step.access for step in chain.steps] == ["", "closes over kept", "[0]"]


def test_a_way_may_begin_in_a_function_that_another_thread_runs() -> None:
    begun, end = threading.Event(), threading.Event()
    made = [Tensor(1)]

    def write(rows: list[Any]) -> None:
        begun.set()
        end.wait(60)

    writer = threading.Thread(target=write, args=([made[0]],))
    writer.start()
    try:
        assert begun.wait(60)
        with Heap(()) as heap:
            roots = {key: root for key, root in user_roots(sys._getframe()).items() if key != id(made)}
            chain = find_chain(heap, made[0], roots, {})
    finally:
        end.set()
        writer.join()
    assert chain.root is not None and (chain.root.scope, chain.expression) == ("write", "rows[0]")


class Linked:
    def __init__(self, after: Any) -> None:
        self.after = after

    def follow(self, *_: Any) -> Any:
        return self.after


class CallbackOfFunctions:
    """Such as Keras' ``LambdaCallback``."""

    def __init__(self, function: Any) -> None:
        self.on_epoch_end = function


def test_a_librarys_callback_is_a_way_to_the_functions_that_it_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {"sys": sys}
    monkeypatch.setattr(roots_module, "file_of", lambda module: functools.__file__ if module else "")
    code = "def begin(self): return sys._getframe()\n"
    exec(compile(code, "/keras/callback_list.py", "exec"), made)
    functions = [CallbackOfFunctions(closing_over()), CallbackOfFunctions(len), CallbackOfFunctions(Linked(1).follow)]
    found = user_roots(made["begin"](SimpleNamespace(callbacks=functions)))
    assert found[id(functions[0])] == Root("callback", "CallbackOfFunctions", __name__, __file__)
    assert id(functions[1]) not in found and id(functions[2]) in found


def test_what_is_too_far_from_any_name_is_not_said_to_be_held_by_none() -> None:
    last = Linked(None)
    first = functools.reduce(lambda after, _: Linked(after), range(500), last)
    with Heap(()) as heap:
        roots = {key: root for key, root in user_roots(sys._getframe()).items() if key == id(first)}
        chain = find_chain(heap, last, roots, {})
    assert chain.root is None and chain.is_cut


def test_code_without_a_module_has_globals_too() -> None:
    names: dict[str, Any] = {"find": lambda heap_of: None, "sys": sys, "kept": [Tensor(1)]}
    exec("def look(): return sys._getframe()\nframe = look()", names)
    found = user_roots(names.pop("frame"))
    assert found[id(names["kept"])].name == "kept"


def test_reading_locals_keeps_no_value_alive() -> None:
    value = Tensor(1)
    reference = weakref.ref(value)
    assert id(value) in user_roots(sys._getframe())
    del value
    assert reference() is None


def test_locals_that_the_function_took_stay_as_they_were() -> None:
    number = 3
    mine = locals()
    later = number + 1
    user_roots(sys._getframe())
    assert mine == {"number": 3} and later


SOURCE = """
losses = []
class Keeper:
    def __init__(self):
        self.arrays = {}
    def keep(self, key, array):
        self.arrays[key] = array
def main():
    losses = []
    for _ in range(3):
        losses += [1]
def other():
    losses.append(2)
"""


@pytest.mark.parametrize(
    ("name", "within", "line"), [("losses", 0, 11), ("losses", 8, 11), ("losses", 12, 13), ("arrays", 0, 7)]
)
def test_the_line_that_adds_to_a_name(name: str, within: int, line: int, tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(SOURCE)
    found = adding_line(str(path), name, within)
    assert found is not None and found.line == line
    assert found.source == SOURCE.splitlines()[line - 1].strip()


def test_a_name_that_is_made_anew_of_itself_is_added_to(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text("curve = empty()\ncurve = join([curve, more()])\nself.all = 1\nself.all = join((self.all, 2))\n")
    for name, line in (("curve", 2), ("all", 4)):
        found = adding_line(str(path), name)
        assert found is not None and found.line == line


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("heapq.heappush(self.entries, 1)", "entries"),
        ("insort(self.entries, 1)", "entries"),
        ("self.queue.put_nowait(1)", "queue"),
        ("batches, preview = tee(source)", "preview"),
        ("first, (second, *rest) = parts", "rest"),
    ],
)
def test_so_do_calls_that_are_given_it_and_assignments_to_several(text: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(f"import heapq\n{text}\nheapq.heappop({name})\n")
    found = adding_line(str(path), name)
    assert found is not None and found.line == 2


CLASSES = """
class Loader:
    def __init__(self):
        self.batches = iter(())

class Keeping:
    def __init__(self):
        self.batches = []
    def add(self, batch):
        self.batches.append(batch)

def outer():
    table = 1
    def inner():
        table = 2
        return lambda: table
    return inner, lambda: table
"""


@pytest.mark.parametrize(
    ("name", "within", "assigned", "line"),
    [
        ("batches", "Loader", True, 4),
        ("batches", "Loader", False, None),  # not what a class adds to that has one of the same name
        ("batches", "Keeping", True, 10),
        ("batches", "Unknown", True, 10),
        ("table", 16, True, 15),
        ("table", 17, True, 13),
    ],
)
def test_a_name_is_looked_for_where_it_is_used(
    name: str, within: int | str, assigned: bool, line: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "train.py"
    path.write_text(CLASSES)
    found = adding_line(str(path), name, within, assigned=assigned)
    assert (found and found.line) == line


def test_the_line_that_calls_a_function(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text("import gc\ngc.collect()\nif slow:\n    gc.disable()  # faster\n")
    found = calling_line(str(path), "gc", "disable")
    assert found is not None and (found.line, found.source) == (4, "gc.disable()  # faster")
    assert calling_line(str(path), "gc", "freeze") is None


def test_the_lines_that_call_one_method_after_another(tmp_path: Path) -> None:
    path = tmp_path / "data.py"
    path.write_text(
        "good = a.cache().repeat()\nbad = a.repeat().map(\n    f).cache('')\ncache(a.repeat())\na.b.cache()\n"
    )
    [place] = chained_lines(str(path), "cache", after="repeat")
    assert (place.line, place.source) == (2, "bad = a.repeat().map(")
    path.write_text("not Python")
    assert chained_lines(str(tmp_path / "none.py"), "cache", after="repeat") == []


def test_a_class_without_a_hash_stops_no_look() -> None:
    class Comparing(type):
        def __eq__(cls, other: object) -> bool:
            return cls is other

    class Compared(metaclass=Comparing):
        pass

    values, plain = [(Compared(), np.ones(1000)) for _ in range(20)], [Compared() for _ in range(1000)]
    found, _ = look(values)
    assert find_cycle(plain) is None and Compared not in map(type, hashable(plain))
    assert found is not None and (found.kind, found.count) == ("array", 20)


def test_arrays_that_functions_of_one_code_close_over_are_found() -> None:
    def make(number: int) -> Any:
        table = np.full(4096, number, "float64")
        return lambda: table

    functions = tuple(make(number) for number in range(20))  # a tuple is no container that one adds to
    with Heap({np.ndarray}) as heap:
        found, _, live = containers(
            heap, type(None), lambda _: 0, lambda all: any(c.closes_over == "table" for c in all.values())
        )
        [(key, contents)] = [(key, each) for key, each in found.items() if each.closes_over == "table"]
        assert any(live[key] is each() for each in functions)
        live.clear()
    assert (contents.kind, contents.closes_over, contents.container) == ("array", "table", "<lambda>")
    assert contents.num_bytes == 20 * 4096 * 8 and contents.place is not None
    assert contents.place.source == 'table = np.full(4096, number, "float64")'


@pytest.mark.parametrize(
    "line",
    [
        "with open_tape() as kept:",
        "with first() as one, open_tape() as (kept, more):",
        "kept.assign(tf.concat([kept, more], 0))",
        "self.kept.assign(numpy.append(self.kept, more))",
    ],
)
def test_a_line_that_opens_or_adds_to_what_is_kept_is_found(line: str, tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(f"kept.assign(other)\nother = kept\n{line}" + ("\n    step()\n" if line.endswith(":") else "\n"))
    assert adding_line(str(path), "kept") == Place(str(path), 3, line)


@pytest.mark.parametrize("text", ["", "def f(:", "x = 1"])
def test_no_line_is_no_place(text: str, tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(text)
    assert adding_line(str(path), "losses") is None


def test_a_collector_that_the_user_switched_off_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "isenabled", lambda: False)
    monkeypatch.setattr(gc, "collect", lambda: pytest.fail("collected"))
    assert collect([], is_host=False) is None


def test_a_collection_tells_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(1000):
            cycle: list[Any] = []
            cycle.append(cycle)
        monkeypatch.setattr(gc, "isenabled", lambda: True)
        found = collect([], is_host=False)
    finally:
        gc.enable()
    assert found is not None and found.num_objects >= 999 and found.malloc_bytes is None


@pytest.mark.skipif(heap_bytes_reader() is None, reason="no glibc")
def test_a_collection_tells_what_it_freed_in_the_heap() -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            cycle: list[Any] = [bytearray(64 * 1024)]
            cycle.append(cycle)
        del cycle
        gc.enable()
        found = collect([], is_host=False)
    finally:
        gc.enable()
    assert found is not None and found.heap_bytes is not None
    assert 49 * 64 * 1024 <= found.heap_bytes <= 60 * 64 * 1024


class Node:
    def __init__(self, before: Any) -> None:
        self.before = before


def test_objects_of_a_users_class_that_pile_up_are_found() -> None:
    before = count_classes(0).classes  # other tests' objects are of classes of a user's, too
    assert before is not None and class_name(Node) not in before
    nodes = [Node(None) for _ in range(100)]
    with Heap(()) as heap:
        roots = user_roots(sys._getframe())
        [found] = find_piles(heap, before, 100, roots, {})
        assert (found.kind, found.class_name, found.count, found.more) == ("object", "Node", 100, 100)
        assert found.chain is not None and found.chain.root is not None
        assert (found.chain.root.name, found.chain.steps[1].access) == ("nodes", "[25]")
        # As many as before, or one in each ten units, is no pile; nor is one that may have been there all the time.
        assert find_piles(heap, {**before, class_name(Node): 99}, 100, roots, {}) == ()
        assert find_piles(heap, before, 1000, roots, {}) == ()
        assert find_piles(heap, None, 100, roots, {}) == ()
    assert nodes


class Tree:
    def __init__(self) -> None:
        self.root = Node(None)
        self.nodes = [Node(self.root) for _ in range(3000)]


def test_a_way_is_found_past_many_objects_that_refer_back() -> None:
    def grow(tree: Tree) -> Any:
        return lambda: tree

    step = grow(Tree())
    with Heap(()) as heap:
        roots = user_roots(sys._getframe())
        trees = heap.of([Tree])
        target = trees[0].root
        chain = find_chain(heap, target, roots, {})
        trees.clear()
    assert step is not None and chain.expression == "tree.root"


@pytest.mark.long
@pytest.mark.parametrize(("searches_s", "is_cut"), [(0.5, True), (100.0, False)])
def test_a_way_is_cut_where_the_time_is_up(searches_s: float, is_cut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_by_the_module[:] = [[[[[["deep"]]]]]]
    deep = kept_by_the_module[0][0][0][0]
    seconds = itertools.count()
    monkeypatch.setattr(heap_module.time, "thread_time", lambda: next(seconds) / 3)
    with Heap(set(), searches_s=searches_s) as heap:
        chain = find_chain(heap, deep, user_roots(None), {})
    kept_by_the_module.clear()
    assert chain.is_cut is is_cut and (chain.root is None) is is_cut
    assert is_cut or chain.expression == "kept_by_the_module[0][0][0][0]"


def test_objects_are_told_from_older_ones_until_a_full_collection() -> None:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        old = [Node(None) for _ in range(100)]
        moment = Moment(1)
        new = [Node(None) for _ in range(100)]
        older = moment.older()
        if sys.version_info >= (3, 14):
            assert older is None
            return
        assert older is not None
        ids = set(map(id, older))
        older.clear()
        assert ids.issuperset(map(id, old)) and ids.isdisjoint(map(id, new))
        gc.collect()
        assert moment.older() is None
    finally:
        if was_enabled:
            gc.enable()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python promotes objects gradually")
def test_frozen_objects_are_not_taken_for_new_ones() -> None:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        moment = Moment(1)
        gc.freeze()
        assert moment.older() is None  # it is not listed itself
        moment = Moment(2)
        older = moment.older()
        assert older == []
        gc.collect(1)  # the moment becomes old itself
        gc.unfreeze()
        assert moment.older() is None  # what was frozen is listed after it
    finally:
        gc.collect()
        if was_enabled:
            gc.enable()


@pytest.mark.long
def test_what_a_finalizer_keeps_is_placed_where_it_was_made() -> None:
    class Response:
        def __init__(self) -> None:
            self.array = np.ones(1000)
            weakref.finalize(self, self.close)  # leads back to it

        def close(self) -> None:
            pass

    for _ in range(20):
        Response()
    key = id(weakref.finalize._registry)  # type: ignore[attr-defined]
    try:
        with Heap({np.ndarray}) as heap:
            found, _, live = containers(heap, type(None), lambda _: 0, lambda found: key in found)
            assert found[key].count >= 20 and found[key].num_bytes == 20 * 8000  # of other tests, too
            chain = find_chain(heap, live[key], user_roots(sys._getframe()), {})
            live.clear()
        assert chain.is_finalizers and not chain.is_librarys
        place = place_of(chain)
        assert place is not None and place.source == "weakref.finalize(self, self.close)  # leads back to it"
    finally:
        registry: Any = weakref.finalize._registry  # type: ignore[attr-defined]
        for each in [each for each, info in registry.items() if type(getattr(info.func, "__self__", 0)) is Response]:
            each.detach()


class Model:
    variables: ClassVar[list[Any]] = []


def test_models_are_followed_without_a_visit_of_all_objects() -> None:
    kept_by_the_module[:] = [Model() for _ in range(8)]
    gc.collect()  # what is new is taken for ours
    try:
        found = follow_models(kept_by_the_module[:], None, 10.0)
        assert gc.isenabled() and found.count == 8 and found.more is None
        assert [chain.expression for chain in found.chains] == ["kept_by_the_module[2]"]
        assert found.place is not None and found.place.file == __file__
        assert follow_models(kept_by_the_module[:], None, -1.0).chains[0].is_cut
    finally:
        kept_by_the_module.clear()


@functools.cache
def features(step: int) -> Any:
    return Tensor(step)


@pytest.mark.long
def test_a_cache_of_a_function_is_named_with_its_decorator() -> None:
    made = [features(step) for step in range(8)]
    line = inspect.getsourcelines(features.__wrapped__)[1]
    with Heap(()) as heap:
        roots = {key: root for key, root in user_roots(sys._getframe()).items() if key != id(made)}
        chain = find_chain(heap, features(3), roots, {})
    features.cache_clear()
    assert chain.expression.startswith("features") and made
    assert place_of(chain) == Place(__file__, line, "@functools.cache")
