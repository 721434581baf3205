"""Causes of growth, from values: which is named, with what evidence, place and fix."""

from __future__ import annotations

import collections
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kerasmemwatch.analysis.leak_words import (
    confirmed,
    leak_lines,
    leak_title,
    trace_lines,
    with_remedy,
    without_cause,
    without_guess,
)
from kerasmemwatch.leaks.causes.case import Case, Rises
from kerasmemwatch.leaks.causes.find import find_causes
from kerasmemwatch.leaks.causes.retained import pick_suspects
from kerasmemwatch.leaks.evidence.chains import Chain, Step
from kerasmemwatch.leaks.evidence.collector import Collected
from kerasmemwatch.leaks.evidence.cycles import Cycle
from kerasmemwatch.leaks.evidence.functions import Difference, TracedFunction
from kerasmemwatch.leaks.evidence.graph_sizes import GrownGraph
from kerasmemwatch.leaks.evidence.look import Contents, Look, Models
from kerasmemwatch.leaks.evidence.makings import Made
from kerasmemwatch.leaks.evidence.piles import Pile
from kerasmemwatch.leaks.evidence.places import Place
from kerasmemwatch.leaks.evidence.roots import Root
from kerasmemwatch.records.growth import Growth, LeakFinding
from kerasmemwatch.watch.search.leak_search import suspicious

GROWING = Growth("device_in_use_bytes CPU:0", "growing", 1000.0, "step", (900, 1100), 20, None, None, 1000.0, "", 200)
RISES = Rises(rows=200, steps=200, train_steps=200, epochs=4, calls=0, models=0, functions=0, gradients=0)
LIST = Step("", "list", "builtins", 200)
CHAIN = Chain(Root("global", "losses", "__main__", "train.py"), (LIST,))
HELD = Contents("tensor", 200, 200_000, "list", "float32[250]", chain=CHAIN)
HELD = replace(HELD, place=Place("train.py", 7, "losses.append(loss)"))


def case(*looks: Look, **changes: Any) -> Case:
    rises = changes.pop("rises", RISES)
    return Case((changes.pop("growth", GROWING),), rises, rises, looks, **changes)


def look(step: int, held: Contents | None = None, **changes: Any) -> Look:
    return Look(step, 0.1, containers={} if held is None else {1: held}, **changes)


def only(found: tuple[LeakFinding, ...]) -> LeakFinding:
    [leak] = found
    return leak


def test_tensors_that_pile_up_are_named_with_their_line() -> None:
    before = replace(HELD, count=100, num_bytes=100_000, chain=None)
    leak = only(find_causes(case(look(100, before), look(200, HELD))))
    assert (leak.cause, leak.rate, leak.unit, leak.whose) == ("retained_tensors", 1000.0, "step", "yours")
    assert leak.where == "train.py:7, losses.append(loss)"
    assert "losses.clear()" in leak.fix and "gained 100" in leak.evidence
    assert leak.confidence is not None and leak.confidence > 0.9


def test_tensors_whose_name_was_not_found_are_told() -> None:
    nameless = replace(HELD, chain=Chain(None, (LIST,), is_cut=True), place=None)
    before = replace(HELD, count=100, num_bytes=100_000, chain=None)
    for looks in ((look(100, before), look(200, nameless)), (look(200, nameless),)):
        leak = only(find_causes(case(*looks)))
        assert (leak.cause, leak.where, leak.trace) == ("retained_tensors", "", ())
        assert leak.evidence.startswith("A list, whose name was not found, holds 200 tensors")
        assert leak.fix.endswith("or empty the list at each epoch's end")
    # One look at what isn't as large as the growth is too little, and so is what nothing in Python refers to.
    assert find_causes(case(look(200, replace(nameless, num_bytes=80_000)))) == ()
    assert find_causes(case(look(200, replace(nameless, chain=Chain(None, (LIST,)))))) == ()


@pytest.mark.parametrize(
    ("unit", "epochs", "regularly"),
    [
        ("step", 4, "at each epoch's end"),
        ("epoch", 4, "at each epoch's end"),
        ("step", 0, "every few hundred steps"),
        ("fit", 4, "after each fit"),
    ],
)
def test_a_cause_is_told_in_the_growths_unit(unit: str, epochs: int, regularly: str) -> None:
    growth = replace(GROWING, unit=unit, rate=1000.0 if unit == "step" else 50_000.0)
    leak = only(find_causes(case(look(200, HELD), growth=growth, rises=replace(RISES, epochs=epochs))))
    assert (leak.unit, leak.rate, leak.bytes_per_step) == (unit, growth.rate, 1000.0)
    assert leak.fix.endswith(f"or empty losses {regularly}: losses.clear()")


def test_a_fix_names_what_the_user_wrote_not_what_keras_keeps_it_in() -> None:
    steps = (
        Step("", "Sequential", "keras"),
        Step("._compile_metrics", "CompileMetrics", "keras"),
        Step("._user_metrics", "list", "builtins", 1),
        Step("[0]", "Ranking", "__main__"),
        Step(".seen", "TrackedList", "keras", 200),
    )
    chain = Chain(Root("global", "model", "__main__", "train.py"), steps)
    held = replace(HELD, chain=chain, place=Place("train.py", 7, "self.seen.append(y)"))
    leak = only(find_causes(case(look(200, held))))
    assert leak.fix.endswith("or empty self.seen at each epoch's end: self.seen.clear()")
    assert leak.evidence.startswith("model._compile_metrics._user_metrics[0].seen")


def test_tensors_are_no_cause_where_every_device_is_steady() -> None:
    of_host = replace(GROWING, series="host_rss_bytes")
    assert only(find_causes(case(look(200, HELD), growth=of_host))).cause == "retained_tensors"
    found = find_causes(case(look(200, HELD), growth=of_host, are_devices_steady=True))
    assert "retained_tensors" not in {each.cause for each in found}
    # The bytes of strings are not in the allocator's memory.
    strings = replace(HELD, like="string[250]")
    assert only(find_causes(case(look(200, strings), growth=of_host, are_devices_steady=True))).rate == 1000.0


def test_a_default_value_is_to_be_made_in_the_function() -> None:
    function = Step("", "mine", "__main__", file="train.py", line=5)
    way = Chain(
        Root("global", "mine", "__main__", "train.py"), (function, replace(LIST, access="default value of bank"))
    )
    leak = only(find_causes(case(look(200, replace(HELD, chain=way)))))
    assert leak.fix == "A default value is made once, with the function: use bank=None, and make it in the function."
    assert leak.evidence.startswith("bank (list) holds 200 tensors")


def test_models_that_functions_in_a_container_close_over_are_kept_by_that_container() -> None:
    steps = (
        Step("", "dict", "builtins", 9),
        Step("['a']", "f", "__main__"),
        Step("closes over model", "Model", "keras"),
    )
    way = Chain(Root("global", "predictors", "__main__", "train.py"), steps)
    found = Models(21, 21_000, (way,))
    leak = only(find_causes(case(look(200, models=found), rises=replace(RISES, calls=20, models=20))))
    assert leak.cause == "models_accumulate" and leak.fix.endswith("predictors.clear()")
    assert "model.clear" not in leak.fix
    # One function by itself is no container, and neither is what holds it.
    held = (Step("", "Trainer", "__main__"), Step(".predict", "f", "__main__"), steps[-1])
    found = Models(21, 21_000, (replace(way, steps=held),))
    leak = only(find_causes(case(look(200, models=found), rises=replace(RISES, calls=20, models=20))))
    assert leak.fix.startswith("Delete each model") and ".clear()" not in leak.fix
    # A list that a function closes over is one.
    held = (*held[:2], Step("closes over kept", "list", "builtins", 20), Step("[0]", "Model", "keras"))
    found = Models(21, 21_000, (replace(way, steps=held),))
    leak = only(find_causes(case(look(200, models=found), rises=replace(RISES, calls=20, models=20))))
    assert leak.fix.endswith("kept.clear()")


def test_a_queue_is_to_have_a_limit() -> None:
    steps = (Step("", "Queue", "queue"), Step(".queue", "deque", "collections", 200))
    way = Chain(Root("global", "batches", "__main__", "train.py"), steps)
    leak = only(find_causes(case(look(200, replace(HELD, container="deque", chain=way)))))
    assert "Queue(maxsize=16)" in leak.fix and "clear()" not in leak.fix


def test_growth_without_a_cause_is_said_to_have_none() -> None:
    leak = only(find_causes(case(look(200, HELD))))
    assert without_cause([GROWING], []).startswith("Cause: unknown.")
    assert without_cause([GROWING], [leak]) == without_cause([replace(GROWING, verdict="steady")], []) == ""
    guess = replace(
        GROWING,
        explanation="Growing: x; some of it may be garbage that Python has not freed yet: gc.collect() would tell",
    )
    assert without_guess([guess], [leak])[0].explanation == "Growing: x" and without_guess([guess], []) == (guess,)
    assert without_guess([guess], [replace(leak, cause="waits_for_collector")]) == (guess,)


def test_what_is_native_makes_no_rise_sure() -> None:
    unsure = replace(GROWING, verdict="too short to tell", explanation="Too short to tell: a rises by 1, in jumps that")
    leak = replace(only(find_causes(case(look(200, HELD)))), cause="native")
    assert confirmed([unsure], [leak]) == (unsure,)
    leak = replace(leak, cause="retained_tensors")
    for why in (", in jumps that", ", for too few steps to"):
        [growth] = confirmed([replace(unsure, explanation=f"Too short to tell: a rises by 1{why}")], [leak])
        assert growth.explanation == "Growing: a grows by 1; what your code keeps explains it"


def test_scalars_are_to_be_kept_as_numbers() -> None:
    leak = only(find_causes(case(look(200, replace(HELD, scalars=True)))))
    assert leak.fix.endswith("losses.append(float(loss))")


def test_views_are_to_be_copied() -> None:
    views = replace(HELD, kind="array", view_bytes=190_000)
    leak = only(find_causes(case(look(200, views))))
    assert leak.cause == "retained_arrays" and ".copy()" in leak.fix


def test_what_does_not_grow_or_is_too_little_is_no_cause() -> None:
    assert find_causes(case(look(100, HELD), look(200, HELD))) == ()
    small = replace(HELD, num_bytes=1000)
    assert find_causes(case(look(200, small))) == ()


CURVE = Contents("array", 1, 200_000, "ndarray", "float64[800, 31]", chain=CHAIN, length=800)
HOST = replace(GROWING, series="host_rss_bytes")


def test_one_array_that_each_step_makes_larger_is_named() -> None:
    leak = only(find_causes(case(look(200, CURVE), growth=HOST)))
    assert leak.cause == "retained_arrays" and leak.confidence == 0.5
    assert (
        "losses is one array, float64[800, 31]: 195.3 KiB. Its length fits 200 steps that each add to it"
        in leak.evidence
    )
    before = look(100, replace(CURVE, num_bytes=100_000, length=400))
    leak = only(find_causes(case(before, look(200, CURVE), growth=HOST)))
    assert "It gained 97.7 KiB in 100 steps" in leak.evidence and leak.confidence == 0.95
    # One that stays as it is explains nothing.
    assert not any("one array" in leak.evidence for leak in find_causes(case(look(100, CURVE), look(200, CURVE))))


def test_a_single_array_is_suspicious_if_the_steps_divide_its_length() -> None:
    assert pick_suspects({1: CURVE}, None, 200_000.0, 200, steps=200) == [1]
    assert pick_suspects({1: CURVE}, None, 200_000.0, 200, steps=199) == [1]  # the newest step may have added or not
    assert pick_suspects({1: CURVE}, None, 200_000.0, 200, steps=190) == []
    assert pick_suspects({1: CURVE}, None, 200_000.0, 200) == []
    # A look that had no need of single ones doesn't show that one is new.
    assert pick_suspects({1: CURVE}, look(100, HELD), 200_000.0, 200, steps=190) == [1]
    assert pick_suspects({2: CURVE}, look(100, HELD), 200_000.0, 200, steps=190) == []


def test_what_gained_little_since_the_last_look_is_no_reason_to_look_no_further() -> None:
    before, little = look(100, HELD), replace(HELD, num_bytes=HELD.num_bytes + 10_000)
    assert pick_suspects({1: little}, before, 20_000.0, 100) == [1]
    assert pick_suspects({1: little}, before, 100_000.0, 100) == []
    assert pick_suspects({1: little}, before, float("nan"), 100) == [1]


def test_a_devices_growth_comes_first_but_for_a_small_part_of_the_hosts() -> None:
    host = replace(HOST, bytes_per_step=10_000.0)
    small, gpu = replace(GROWING, bytes_per_step=900.0), replace(GROWING, series="device_in_use_bytes GPU:0")
    most = replace(GROWING, bytes_per_step=9_000.0)
    assert suspicious([host, most]) == (most, host)
    assert suspicious([small, host]) == (host, small)
    assert suspicious([host, gpu]) == (gpu, host)
    assert suspicious([replace(host, verdict="steady"), small]) == (small,)


def test_what_is_too_short_to_tell_is_explained_if_it_rises_and_nothing_else_grows() -> None:
    maybe = replace(HOST, verdict="too short to tell")
    assert suspicious([maybe, replace(GROWING, verdict="steady")]) == (maybe,)
    assert suspicious([maybe, GROWING]) == (GROWING,)
    assert suspicious([replace(maybe, since_step=None)]) == ()
    garbage = replace(HOST, series="host_malloc_bytes", verdict="waits for the collector")
    assert suspicious([garbage, HOST]) == (HOST,) and suspicious([garbage]) == (garbage,)


def test_only_what_the_user_keeps_makes_a_rise_sure() -> None:
    maybe = replace(
        HOST, verdict="too short to tell", explanation="Too short to tell: host RSS rises by 1, in jumps so"
    )
    arrays = replace(HELD, kind="array")
    [leak] = find_causes(case(look(200, arrays), growth=maybe))
    assert leak.cause == "retained_arrays"
    [growth] = confirmed([maybe], [leak])
    assert growth.is_growing and growth.explanation == (
        "Growing: host RSS grows by 1; what your code keeps explains it"
    )
    for told in (replace(maybe, since_step=None), replace(maybe, bytes_per_step=100.0), HOST):
        assert confirmed([told], [leak]) == (told,)
    assert confirmed([maybe], [replace(leak, whose="Keras'")]) == (maybe,)
    # It has one of each step or epoch; a constant may have the size of the growth by chance.
    for count, rises in ((250, RISES), (150, RISES), (20, replace(RISES, epochs=12)), (12, replace(RISES, epochs=2))):
        assert find_causes(case(look(200, replace(arrays, count=count)), growth=maybe, rises=rises)) == (), count
    assert find_causes(case(look(200, replace(arrays, count=13)), growth=maybe, rises=replace(RISES, epochs=11))) != ()
    # A PyDataset makes ten batches before the steps take them.
    assert find_causes(case(look(200, replace(arrays, count=212)), growth=maybe)) != ()
    assert find_causes(case(look(200, replace(HELD, kind="object")), growth=maybe)) == ()
    then = replace(HELD, kind="object", count=100, num_bytes=100_000, chain=None)
    assert find_causes(case(look(100, then), look(200, replace(HELD, kind="object")), growth=maybe)) != ()
    # What is not of its size, and what no list of the user's shows, is no cause.
    assert find_causes(case(look(200, replace(arrays, num_bytes=90_000)), growth=maybe)) == ()
    assert find_causes(case(look(200), growth=maybe, collected=WAITS)) == ()
    assert find_causes(case(look(200), growth=HOST, rises=replace(RISES, gradients=40, functions=80))) != ()
    assert find_causes(case(look(200), growth=maybe, rises=replace(RISES, gradients=40, functions=80))) == ()


def test_things_that_hold_tensors_are_counted_as_such() -> None:
    held = replace(HELD, within="dict")
    leak = only(find_causes(case(look(200, held))))
    assert "losses (list) holds 200 dict objects with tensors (float32[250])" in leak.evidence
    leak = only(find_causes(case(look(200, replace(held, within="ValueError")))))
    assert leak.fix.startswith("Keep str(error)")


def test_suspects_are_those_that_have_the_size_of_the_growth() -> None:
    data = replace(HELD, num_bytes=10**9)
    assert pick_suspects({1: HELD, 2: data}, None, 200_000.0, 200) == [1]
    before = look(100, replace(HELD, num_bytes=150_000))
    found = {1: HELD, 2: replace(HELD, num_bytes=100)}
    assert list(pick_suspects(found, before, 200_000.0, 200)) == [1]


def kept(*steps: Step) -> Chain:
    return Chain(Root("global", "kept", "__main__", "train.py"), steps)


HISTORY = Step("[0]", "History", "keras.src.callbacks.history")
MODEL = Step("._model", "Sequential", "keras.src.models.sequential")


def test_models_kept_by_histories() -> None:
    rises = replace(RISES, calls=20, models=20)
    found = Models(21, 21_000, (kept(LIST, HISTORY, MODEL),))
    leak = only(find_causes(case(look(200, models=found), rises=rises)))
    assert (leak.cause, leak.unit, leak.rate) == ("models_accumulate", "model", 1000)
    assert "kept.append(history.history)" in leak.fix
    assert [link.verdict for link in leak.trace] == ["expected", "unknown", "suspect", "stuck"]
    assert leak.trace[-1].words == "._model Sequential x20"


@pytest.mark.parametrize(
    ("count", "collections", "is_told"),
    [(20, 10, True), (20, 9, False), (16, 20, True), (15, 20, False)],
    ids=["all live", "they may wait for the collector", "nearly all", "too few"],
)
def test_models_that_nearly_all_live_make_a_rise_sure(count: int, collections: float, is_told: bool) -> None:
    maybe = replace(GROWING, series="host_malloc_bytes", verdict="too short to tell", bytes_per_step=150.0)
    rises = replace(RISES, calls=20, models=20, collections=collections)
    found = look(200, models=Models(count, 1000 * count, (kept(LIST, MODEL),)))
    leaks = find_causes(case(found, growth=maybe, rises=rises))
    assert [(each.cause, each.bytes_per_step) for each in leaks] == [("models_accumulate", 100.0)] * is_told
    assert find_causes(case(found, growth=replace(maybe, bytes_per_step=900.0), rises=rises)) == ()


@pytest.mark.parametrize(("more", "is_told"), [(None, False), (0, False), (20, True)])
def test_models_that_were_never_trained_are_told_by_how_many_came(more: int | None, is_told: bool) -> None:
    found = Models(40, 40_000, (kept(LIST, MODEL),), more=more)
    leaks = find_causes(case(look(200, models=found)))
    assert [each.cause for each in leaks] == ["models_accumulate"] * is_told
    assert not leaks or "20 of them are new since objects were first counted." in leaks[0].evidence


@pytest.mark.parametrize(("count", "is_told"), [(99, False), (100, True)])
def test_models_that_nobody_counted_are_told_if_there_is_one_in_two_steps(count: int, is_told: bool) -> None:
    rises = replace(RISES, models=float("nan"))
    leaks = find_causes(case(look(200, models=Models(count, 40_000, (kept(LIST, MODEL),))), rises=rises))
    assert [each.cause for each in leaks] == ["models_accumulate"] * is_told
    counted = Models(count, 40_000, (kept(LIST, MODEL),), more=0)
    assert find_causes(case(look(200, models=counted), rises=rises)) == ()


def test_two_models_that_live_as_long_as_the_loop_are_no_leak() -> None:
    rises = replace(RISES, calls=20, models=0)
    assert find_causes(case(look(100, models=Models(4, 400)), look(200, models=Models(4, 400)), rises=rises)) == ()


def test_graphs_that_the_registry_pins_are_tensorflows() -> None:
    rises = replace(RISES, calls=10, models=10, gradients=20, functions=50)
    leak = only(find_causes(case(look(200), rises=rises)))
    assert (leak.cause, leak.whose, leak.unit, leak.rate) == ("graphs_pinned", "TensorFlow's", "model", 20_000)
    assert "kerasmemwatch.release(model)" in leak.fix and leak.known_issue == "tensorflow #80895"
    again = only(find_causes(case(look(200), rises=replace(rises, models=0))))
    assert again.unit == "fit" and "Compile the model once" in again.fix
    # Where the functions went, the graphs that stayed tell.
    gone = replace(rises, functions=0)
    leak = only(find_causes(case(look(200, graphs=20), rises=gone)))
    assert leak.cause == "graphs_pinned" and leak.evidence.endswith("2 a model. 20 graphs are alive.")
    assert find_causes(case(look(200, graphs=19), rises=gone)) == () == find_causes(case(rises=gone))
    by_step = replace(gone, calls=0, models=0, gradients=200)
    leak = only(find_causes(case(look(200, graphs=200), rises=by_step)))
    assert leak.unit == "step" and "200 entries, 1 a step." in leak.evidence


@pytest.mark.parametrize(
    ("difference", "fix"),
    [
        (Difference("i", "value", ("0", "1")), "i=tf.constant(i)"),
        (Difference("x", "shape", ("(3,)", "(4,)")), "drop_remainder=True"),
        (Difference("x", "dtype", ("float32", "int32")), "tf.cast"),
        (Difference("self", "object", ()), "once"),
    ],
)
def test_a_retraced_function_is_named_with_what_differs(difference: Difference, fix: str) -> None:
    function = TracedFunction("step", "/home/me/train.py", 12, 190, 1, (difference,))
    rises = replace(RISES, functions=200)
    leak = only(find_causes(case(look(200, functions=(function,)), rises=rises)))
    assert leak.cause == "retracing" and leak.where.startswith("/home/me/train.py:12")
    assert difference.name in leak.evidence and fix in leak.fix


def test_retracing_has_the_rate_of_the_series_that_grows_most() -> None:
    function = TracedFunction("step", "/home/me/train.py", 12, 190, 1, (Difference("i", "value", ("0", "1")),))
    host = replace(GROWING, series="host_rss_bytes", bytes_per_step=240_000.0, since_step=30)
    found = case(look(200, functions=(function,)), rises=replace(RISES, functions=200))
    leak = only(find_causes(replace(found, growth=(GROWING, host))))
    assert (leak.bytes_per_step, leak.rate, leak.since_step) == (240_000.0, 240_000.0, 30)


def test_plain_values_explain_growth_of_the_host_by_about_their_size_only() -> None:
    log = replace(HELD, kind="object", like="dict")
    host = replace(GROWING, series="host_rss_bytes")
    leak = only(find_causes(case(look(200, log), growth=host)))
    assert (leak.cause, leak.confidence) == ("python_objects", 0.5)
    assert "about 195.3 KiB" in leak.evidence and "objects (dict)" in leak.evidence
    assert find_causes(case(look(200, log), growth=GROWING)) == ()
    # Of two looks a container that only the newer one has may have been there before.
    assert only(find_causes(case(look(100), look(200, log), growth=host))).confidence == 0.5
    grown = case(look(100, replace(log, num_bytes=100_000, count=100)), look(200, log), growth=host)
    assert "gained 100 (about 97.7 KiB)" in only(find_causes(grown)).evidence
    small = replace(log, num_bytes=60_000)
    assert only(find_causes(case(look(200, small), growth=host))).cause == "native"
    library = replace(log, chain=replace(CHAIN, root=Root("global", "cache", "json", json.__file__)), place=None)
    assert only(find_causes(case(look(200, library), growth=host))).cause == "native"


def test_a_function_that_is_not_traced_anew_is_no_cause() -> None:
    function = TracedFunction("step", "/home/me/train.py", 12, 3, 1)
    assert find_causes(case(look(200, functions=(function,)), rises=replace(RISES, functions=200))) == ()


WAITS = Collected(5000, {"CPU:0": 150_000}, 1_000_000)


@pytest.mark.parametrize(
    ("rises", "fix"),
    [
        (replace(RISES, calls=200), "predict_on_batch"),
        (replace(RISES, calls=20, py_functions=20), "every 10 calls"),
        (RISES, "gc.freeze()"),
    ],
)
def test_what_one_collection_gives_back_waits_for_the_collector(rises: Rises, fix: str) -> None:
    leak = only(find_causes(case(rises=rises, collected=WAITS)))
    assert leak.cause == "waits_for_collector" and fix in leak.fix
    [growth] = with_remedy([replace(GROWING, explanation="Growing: it grows")], [leak])
    assert growth.verdict == "waits for the collector" and fix in growth.explanation


def test_garbage_of_the_heap_is_measured_there() -> None:
    garbage = replace(GROWING, series="host_malloc_bytes", verdict="waits for the collector")
    freed = Collected(5000, {"CPU:0": 10}, rss_bytes=0, heap_bytes=150_000)
    leak = only(find_causes(case(growth=garbage, rises=replace(RISES, collections=0), collected=freed)))
    assert leak.cause == "waits_for_collector" and "gave back 146.5 KiB. Until then" in leak.evidence
    # What a device lost is not all.
    leak = only(find_causes(case(collected=replace(WAITS, heap_bytes=16 * 2**20))))
    assert "gave back 146.5 KiB, and 16.0 MiB of the host's heap. Until then" in leak.evidence


def test_a_cycle_of_the_users_is_named_with_its_line() -> None:
    cycle = Cycle("objects of class Result", 40, "callback", Place("train.py", 12, "self.callback = self.show"))
    leak = only(find_causes(case(collected=replace(WAITS, cycle=cycle))))
    assert (leak.whose, leak.known_issue, leak.where) == ("yours", "", "train.py:12, self.callback = self.show")
    assert "40 were objects of class Result, each of which refers to itself through .callback." in leak.evidence
    assert leak.fix.startswith("Break the cycle: hold the object by weakref.ref")


def test_a_collection_that_gives_little_back_is_no_cause() -> None:
    assert find_causes(case(collected=Collected(5, {"CPU:0": 10}))) == ()
    assert with_remedy([GROWING], []) == (GROWING,)


def test_a_librarys_own_cache_is_not_the_users_container() -> None:
    own = Chain(Root("global", "tape_cache", "tensorflow.script_ops", np.__file__), (LIST,))
    assert find_causes(case(look(200, replace(HELD, chain=own, place=None)))) == ()
    # What a doctest keeps has no file, and is no library's.
    doctests = Chain(Root("global", "losses", "<code>", "<doctest growth.md[12]>"), (LIST,))
    assert only(find_causes(case(look(200, replace(HELD, chain=doctests, place=None))))).cause == "retained_tensors"
    kept_there = replace(HELD, chain=own, place=Place("train.py", 9, "self.losses.append(loss)"))
    assert only(find_causes(case(look(200, kept_there)))).cause == "retained_tensors"


def test_what_python_holds_it_was_told_to_hold() -> None:
    queues = Chain(Root("global", "_queues", "queues", collections.__file__), (LIST,))
    assert only(find_causes(case(look(200, replace(HELD, chain=queues, place=None))))).cause == "retained_tensors"
    waiting = Chain(Root("class", "finalize._registry", "weakref", collections.__file__), (LIST,))
    leak = only(find_causes(case(look(200, replace(HELD, chain=waiting, place=None)))))
    assert leak.fix.startswith("weakref.finalize() keeps its function and arguments until the object dies")
    pile = Pile("object", "Response", "__main__", 200, 100, replace(waiting, steps=(LIST, LIST)))
    assert only(find_causes(case(look(200, piles=(pile,))))).fix == leak.fix


def test_tapes_that_tensorflow_keeps_are_not_in_a_name_of_the_users() -> None:
    own = Chain(Root("global", "tape_cache", "tensorflow.script_ops", np.__file__), (LIST,))
    pile = Pile("tape", "GradientTape", "tensorflow", 300, 269, own)
    assert find_causes(case(look(200, piles=(pile,)))) == ()
    made = Made(py_functions=300, tapes=300, steps=300, tape_bytes=1000.0)
    assert only(find_causes(case(look(200, piles=(pile,)), made=made))).cause == "tape_cache"


def test_objects_whose_name_was_not_found_are_told() -> None:
    cut = Chain(None, (Step("", "Node", "__main__", None),), is_cut=True)
    leak = only(find_causes(case(look(200, piles=(Pile("object", "Node", "__main__", 400, 200, cut),)))))
    assert (leak.cause, leak.where, leak.trace) == ("python_objects", "", ())
    assert leak.evidence == (
        "400 objects of class Node are alive, 200 of them new since memory grows. What holds them was not found."
    )
    assert leak.fix.startswith("Let go of each Node when it is done")
    nowhere = replace(cut, is_cut=False)  # all was searched, and nothing of the user's holds them
    assert find_causes(case(look(200, piles=(Pile("object", "Node", "__main__", 400, 200, nowhere),)))) == ()


def test_what_holds_many_is_named_though_more_is_on_the_way() -> None:
    steps = (Step("", "Trainer", "train"), Step(".pending", "list", "builtins", 200), Step("[40]", "gradients", ""))
    chain = Chain(
        Root("global", "trainer", "train", "train.py"), (*steps, Step("closes over tape", "GradientTape", ""))
    )
    leak = only(find_causes(case(look(200, piles=(Pile("tape", "GradientTape", "tensorflow", 200, 100, chain),)))))
    assert leak.fix.endswith("don't keep tapes in trainer.pending.")
    few = (Step("", "dict", "builtins", 5), Step("['a']", "Trainer", "train"), Step(".tape", "GradientTape", ""))
    state = Chain(Root("global", "state", "train", "train.py"), few)
    open_tape = Pile("open tape", "GradientTape", "tensorflow", 1, None, state)
    assert "as state['a'].tape:" in only(find_causes(case(look(200, piles=(open_tape,))))).fix


def test_values_that_tensorflow_holds_by_the_users_object_are_the_users() -> None:
    root = Root("registry", "TensorFlow's list of Python functions of a graph", "", "")
    seen = Chain(root, (LIST, Step("[0]", "Filter", "train"), Step(".seen", "set", "builtins", 200)))
    held = replace(HELD, kind="object", like="bytes", container="set", chain=seen)
    leak = only(find_causes(case(look(200, held), growth=HOST)))
    assert leak.evidence == "Filter.seen (set) holds 200 objects (bytes): about 195.3 KiB."
    assert leak.fix.endswith("Filter.seen.clear()")
    closed = replace(
        seen, steps=(LIST, Step("[0]", "keep", "train"), Step("closes over seen", "list", "builtins", 200))
    )
    leak = only(find_causes(case(look(200, replace(held, chain=closed)), growth=HOST)))
    assert leak.evidence.startswith("seen (set) holds")
    assert only(find_causes(case(look(200, replace(held, place=None)), growth=HOST))).cause == "native"


def test_what_a_container_may_hold_is_told() -> None:
    leak = only(find_causes(case(look(200, replace(HELD, container="deque", most=1000)))))
    assert leak.evidence.endswith("It may hold 1,000 (maxlen), which would take 976.6 KiB.")
    assert leak.fix == "Give losses a smaller maxlen, or keep less of each."
    assert [link.reason for link in leak.trace if link.verdict == "suspect"] == ["it keeps the newest 1,000"]


def test_arrays_in_no_one_container_are_told_by_their_size() -> None:
    steps = (Step("", "_tee", "itertools"), Step("", "_tee_dataobject", "itertools"), Step("[0]", "ndarray", "numpy"))
    chain = Chain(Root("global", "preview", "train", "train.py"), steps)
    apart = Contents("array", 200, 200_000, "", "float32[250]", chain=chain)
    assert pick_suspects({-5: apart}, None, 200_000.0, 200) == [-5]
    assert pick_suspects({-5: replace(apart, count=99)}, None, 200_000.0, 200) == []
    assert pick_suspects({-5: apart}, look(100), 200_000.0, 200) == []  # they may have been there
    leak = only(find_causes(case(look(200, apart), growth=HOST)))
    assert (leak.cause, leak.confidence) == ("retained_arrays", 0.5)
    words = "200 arrays (float32[250]) are alive: 195.3 KiB, not in one container. preview leads to one of them."
    assert leak.evidence == words and leak.fix.startswith("Let go of what leads from preview to them")
    assert leak.trace[-1].words == "[0] ndarray x200"
    full = replace(chain, steps=(Step("", "deque", "collections", 200), *steps[2:]))  # nothing piles up in it
    assert only(find_causes(case(look(200, replace(apart, chain=full)), growth=HOST))).cause == "native"
    small = replace(apart, num_bytes=80_000)
    assert only(find_causes(case(look(200, small), growth=HOST))).cause == "native"


def test_functions_that_keep_an_array_each() -> None:
    place = Place("train.py", 7, "table = load()")
    steps = (LIST, Step("[...]", "<lambda>", "builtins"), Step("closes over table", "ndarray", "numpy"))
    listed = Chain(Root("registry", "TensorFlow's list of Python functions of a graph", "", ""), steps)
    contents = Contents("array", 200, 200_000, "<lambda>", "float32[250]", "", False, 0, listed, place, None, "table")
    leak = only(find_causes(case(look(200, contents), growth=HOST)))
    assert (leak.cause, leak.known_issue) == ("retained_arrays", "tensorflow #37653")
    assert leak.where == "train.py:7, table = load()"
    words = "200 functions <lambda> are alive, each with its own table (float32[250]): 195.3 KiB."
    assert leak.evidence.startswith(words) and "once, before the loop" in leak.fix and "from_generator" in leak.fix
    assert leak.trace[0].words.startswith("TensorFlow's list") and leak.trace[-1].words.endswith("ndarray x200")


def test_of_functions_that_were_not_followed_it_is_not_said_who_keeps_them() -> None:
    place, alone = Place("train.py", 7, "table = load()"), Chain(None, (Step("", "ndarray", "numpy"),))
    contents = Contents("array", 200, 200_000, "<lambda>", "float32[250]", "", False, 0, alone, place, None, "table")
    leak = only(find_causes(case(look(200, contents), growth=HOST)))
    assert (leak.where, leak.known_issue, leak.trace) == ("train.py:7, table = load()", "", ())
    assert "once, before the loop" in leak.fix and "TensorFlow" not in leak.fix


def test_a_collector_that_is_switched_off_is_named_where_nothing_else_is() -> None:
    assert "gc.enable()" in only(find_causes(case(look(200), collector_on=False))).fix
    off_at = Place("train.py", 3, "gc.disable()")
    leak = only(find_causes(case(look(200), collector_on=False, off_at=off_at)))
    assert leak.where == "train.py:3, gc.disable()"


def test_a_finding_in_words() -> None:
    leak = only(find_causes(case(look(200, HELD))))
    assert leak_title(leak) == "Tensors are kept (retained_tensors): +1000 B a step since step 20 (80% sure)"
    assert ": +3.0 KiB an epoch since" in leak_title(replace(leak, rate=3072.0, unit="epoch"))
    assert [line.partition(":")[0] for line in leak_lines(leak)] == ["Where", "Fix", "Evidence"]
    lines = trace_lines(leak)
    assert lines[0].startswith("global losses of train.py") and "CHANGE THIS" in lines[1]
    assert lines[2].strip() == "-> [...] EagerTensor x200  [stuck]: float32[250]"


def test_a_finding_of_unknown_figures_in_words() -> None:
    leak = LeakFinding("odd", "", None, None, None, "", "")
    assert leak_title(leak) == "odd" and leak_lines(leak) == () and trace_lines(leak) == ()


def test_tapes_that_are_kept_keep_tensors() -> None:
    chain = Chain(Root("local", "tapes", "main", "train.py", 3), (LIST, Step("[0]", "GradientTape", "tensorflow")))
    pile = Pile("tape", "GradientTape", "tensorflow", 200, 100, chain, Place("train.py", 9, "tapes.append(tape)"))
    leak = only(find_causes(case(look(100), look(200, piles=(pile,)))))
    assert leak.cause == "retained_tensors" and leak.where == "train.py:9, tapes.append(tape)"
    assert "100 of them new since" in leak.evidence and leak.trace[-1].words == "[0] GradientTape x200"


def test_a_tape_that_records_between_steps_keeps_them_all() -> None:
    chain = Chain(Root("local", "tape", "main", "train.py", 3), (Step("", "GradientTape", "tensorflow"),))
    leak = only(find_causes(case(look(200, piles=(Pile("open tape", "GradientTape", "tensorflow", 1, None, chain),)))))
    assert leak.cause == "retained_tensors" and leak.where == "tape" and "between steps" in leak.evidence


def grown_variable(num_bytes: int, kind: str = "growing variable") -> Pile:
    chain = Chain(Root("global", "bank", "__main__", "train.py"), (Step("", "ResourceVariable", "tensorflow"),))
    place = Place("train.py", 9, "bank.assign(tf.concat([bank, z], 0))")
    return Pile(kind, "ResourceVariable", "tensorflow", 1, None, chain, place, num_bytes, "float32[500, 100]")


@pytest.mark.parametrize("kind", ["growing variable", "growing table"])
def test_a_single_value_that_grows_is_named(kind: str) -> None:
    leak = only(find_causes(case(look(200, piles=(grown_variable(200_000, kind),)))))
    assert leak.cause == "retained_tensors" and leak.where == "train.py:9, bank.assign(tf.concat([bank, z], 0))"
    assert leak.evidence == "bank holds 195.3 KiB by now: float32[500, 100]." and "bank." in leak.fix
    assert [link.verdict for link in leak.trace] == ["expected", "suspect", "stuck"]
    # RSS rises by more: each new value is made beside the old one.
    host = replace(GROWING, series="host_rss_bytes", bytes_per_step=3000.0)
    both = replace(case(look(200, piles=(grown_variable(200_000, kind),))), growth=(host, GROWING))
    assert only(find_causes(both)).cause == "retained_tensors"


@pytest.mark.parametrize("kind", ["growing variable", "growing table"])
def test_what_was_large_from_the_start_is_no_cause(kind: str) -> None:
    """A large table beside a slow leak: two looks tell that it gained nothing, and one that it is far too large."""
    for host in (GROWING, replace(GROWING, series="host_rss_bytes")):
        found = find_causes(case(look(200, piles=(grown_variable(1_000_000_000, kind),)), growth=host))
        assert "retained_tensors" not in {leak.cause for leak in found}
        found = find_causes(case(look(200, tensors=(5000, 1_000_000_000)), growth=host))
        assert "retained_tensors" not in {leak.cause for leak in found}


def test_a_lookup_table_takes_none_of_a_gpus_memory() -> None:
    of_gpu = replace(GROWING, series="device_in_use_bytes GPU:0")
    for kind, count in (("growing table", 0), ("growing variable", 1)):
        found = find_causes(case(look(200, piles=(grown_variable(200_000, kind),)), growth=of_gpu))
        assert len(found) == count


def test_tensors_that_gain_as_much_are_told_though_nothing_is_known_to_hold_them() -> None:
    looks = [look(100, tensors=(110, 110_000)), look(200, tensors=(210, 210_000))]
    leak = only(find_causes(case(*looks, growth=replace(GROWING, series="host_rss_bytes"))))
    assert (leak.cause, leak.where, leak.trace, leak.rate) == ("retained_tensors", "", (), 1000.0)
    assert leak.evidence.startswith("210 tensors are alive, 205.1 KiB: 100 more than 100 steps before, which take 97.7")
    assert only(find_causes(case(look(200, tensors=(210, 210_000))))).confidence == 0.5  # one for each step
    for others in (
        [look(200, tensors=(190, 210_000))],  # fewer than steps
        [look(200, replace(HELD, count=100, num_bytes=50_000, chain=None), tensors=(210, 210_000))],  # most are held
        [look(200, tensors=(210, 150_000))],  # less than the growth
        [look(100, tensors=(110, 110_000)), look(200, tensors=(115, 210_000))],  # few
        [look(100, tensors=(110, 110_000)), look(200, tensors=(210, 140_000))],  # little
    ):
        assert find_causes(case(*others)) == ()
    assert find_causes(case(*looks, are_devices_steady=True)) == ()


def test_a_value_that_does_not_grow_explains_nothing() -> None:
    assert not find_causes(case(look(200, piles=(grown_variable(50_000),))))
    looks = [look(step, piles=(grown_variable(held),)) for step, held in ((100, 900_000), (200, 920_000))]
    assert not find_causes(case(*looks))
    looks[0] = look(100, piles=(grown_variable(800_000),))
    assert only(find_causes(case(*looks))).cause == "retained_tensors"


def test_objects_beside_what_they_hold_are_no_cause_of_their_own() -> None:
    pile = Pile("object", "Item", "__main__", 200, None, CHAIN)
    assert only(find_causes(case(look(200, HELD, piles=(pile,))))).cause == "retained_tensors"
    assert only(find_causes(case(look(200, piles=(pile,))))).cause == "python_objects"


HOST = replace(GROWING, series="host_rss_bytes")


def test_what_is_outside_python_is_told_by_what_gives_it_back() -> None:
    freed = case(look(200), growth=HOST, collected=Collected(5, {}, 0, malloc_bytes=180_000))
    assert only(find_causes(freed)).cause == "malloc_retention"
    assert freed.collected is not None
    for top, cause in ((170_000, "malloc_retention"), (1_000, "fragmentation")):
        in_pieces = replace(freed, collected=replace(freed.collected, top_bytes=top))
        assert only(find_causes(in_pieces)).cause == cause
    leak = only(find_causes(case(look(200), growth=HOST, collected=Collected(5, {}, 0, malloc_bytes=10))))
    assert leak.cause == "native" and "collection" in leak.evidence and "release()" in leak.fix
    assert [link.words for link in leak.trace] == ["held outside Python"]


def test_a_device_is_not_explained_by_what_the_host_gives_back() -> None:
    assert find_causes(case(look(200), collected=Collected(5, {}, 0, malloc_bytes=10**9))) == ()


def test_a_cache_that_is_never_full_is_named() -> None:
    place = Place("train.py", 3, "data = rows.repeat().cache()")
    leak = only(find_causes(case(look(200, cached_bytes=200_000, cache_place=place))))
    assert (leak.cause, leak.where, leak.confidence) == ("native", "train.py:3, data = rows.repeat().cache()", 0.8)
    assert "195.3 KiB in the in-memory caches" in leak.evidence and leak.fix.startswith("Call cache() before repeat()")
    # One that may be full explains nothing, nor does one on a GPU's host, or too small a one.
    assert find_causes(case(look(200, cached_bytes=200_000))) == ()
    assert find_causes(case(look(200, cached_bytes=70_000, cache_place=place))) == ()
    gpu = replace(GROWING, series="device_in_use_bytes GPU:0")
    assert find_causes(case(look(200, cached_bytes=200_000, cache_place=place), growth=gpu)) == ()
    looks = look(100, cached_bytes=100_000), look(200, cached_bytes=200_000)
    assert only(find_causes(case(*looks))).where == ""
    for then in (190_000, None):  # or they were not asked
        assert find_causes(case(replace(looks[0], cached_bytes=then), looks[1])) == ()


def test_programs_of_models_that_xla_compiles_are_kept() -> None:
    rises = replace(RISES, calls=10, models=10)
    leak = only(find_causes(case(look(200, is_compiled=True), growth=HOST, rises=rises)))
    assert (leak.cause, leak.unit, leak.rate) == ("compiled_programs", "model", 20_000)
    assert only(find_causes(case(look(200), growth=HOST, rises=rises))).cause == "native"


@pytest.mark.parametrize(
    ("models", "mib", "is_told"),
    [(5, 9, True), (4, 9, False), (5, 1, False), (5, 50, False)],
    ids=["as programs", "too few", "too small", "too large"],
)
def test_programs_have_a_size_that_makes_a_rise_sure(models: int, mib: int, is_told: bool) -> None:
    maybe = replace(HOST, verdict="too short to tell", explanation="Too short to tell: host RSS rises by 1, in jumps")
    maybe = replace(maybe, bytes_per_step=mib * 2**20 * models / RISES.steps)
    leaks = find_causes(case(look(200, is_compiled=True), growth=maybe, rises=replace(RISES, models=models)))
    assert [each.cause for each in leaks] == ["compiled_programs"] * is_told
    if is_told:
        [growth] = confirmed([maybe], leaks)
        assert growth.explanation == "Growing: host RSS grows by 1; what TensorFlow keeps explains it"


PLACES = {name: Place("train.py", line, name) for line, name in enumerate(("tables", "names", "seeds", "py_functions"))}


def made(**counts: int) -> Made:
    return Made(steps=200, places=PLACES, **counts)


def test_tables_that_are_made_again_and_again_are_tensorflows() -> None:
    leak = only(find_causes(case(look(200), made=made(tables=100))))
    assert (leak.cause, leak.whose, leak.known_issue) == ("resource_tables", "TensorFlow's", "tensorflow #61866")
    assert leak.where == "train.py:0, tables" and "100 lookup tables" in leak.evidence and "once" in leak.fix
    assert [link.verdict for link in leak.trace] == ["expected", "suspect"]


def test_a_few_tables_or_ones_too_small_for_the_growth_are_no_cause() -> None:
    assert find_causes(case(look(200), made=made(tables=4))) == ()
    assert find_causes(case(look(200), made=made(tables=400))) == ()


def test_what_the_user_keeps_comes_before_what_is_only_counted() -> None:
    assert only(find_causes(case(look(200, HELD), made=made(tables=100)))).cause == "retained_tensors"


def test_graphs_that_are_pinned_and_tables_are_both_told() -> None:
    rises = replace(RISES, calls=10, models=10, gradients=20, functions=50)
    found = find_causes(case(look(200), rises=rises, made=made(tables=10)))
    assert [leak.cause for leak in found] == ["graphs_pinned", "resource_tables"]


KERNELS = replace(HOST, bytes_per_step=40_000.0)


def test_kernels_of_new_names_or_seeds_are_named_if_they_explain_the_growth() -> None:
    leak = only(find_causes(case(look(200), growth=KERNELS, made=made(names=200))))
    assert (leak.cause, leak.where) == ("kernel_cache", "train.py:1, names")
    assert "200 variables got new names" in leak.evidence and "release()" in leak.fix
    seeded = only(find_causes(case(look(200), growth=KERNELS, made=made(seeds=190, names=10))))
    assert seeded.where == "train.py:2, seeds" and "SeedGenerator" in seeded.fix
    assert "10 variables got new names and 190 eager operations drew a seed" in seeded.evidence
    for number in (4, 40, 2000):
        assert only(find_causes(case(look(200), growth=KERNELS, made=made(names=number)))).cause == "native"
    # Many of them make sure what rows alone don't tell.
    maybe = replace(
        KERNELS, verdict="too short to tell", explanation="Too short to tell: host RSS rises by 1, in jumps"
    )
    leak = only(find_causes(case(growth=maybe, made=made(names=200))))
    [growth] = confirmed([maybe], [leak])
    assert growth.explanation == "Growing: host RSS grows by 1; what TensorFlow keeps explains it"
    less = replace(maybe, bytes_per_step=15_000.0)
    assert find_causes(case(growth=less, made=made(names=100))) != ()
    assert find_causes(case(growth=less, made=made(names=90))) == ()
    # Kernels are the host's.
    device = replace(KERNELS, series="device_in_use_bytes CPU:0")
    assert find_causes(case(look(200), growth=device, made=made(names=200))) == ()


def test_tapes_in_tensorflows_cache_are_named_if_they_hold_the_growth() -> None:
    tapes = replace(made(tapes=200, py_functions=200), tape_bytes=900.0)
    leak = only(find_causes(case(look(200), made=tapes)))
    assert (leak.cause, leak.where, leak.whose) == ("tape_cache", "train.py:3, py_functions", "TensorFlow's")
    assert "numpy_function" in leak.fix and "gained 200" in leak.evidence
    assert find_causes(case(look(200), made=replace(tapes, tape_bytes=100.0))) == ()
    # Each has a kernel, too, which is the host's.
    both = case(look(200), growth=KERNELS, made=replace(tapes, tape_bytes=3000.0))
    assert only(find_causes(both)).cause == "tape_cache"


def test_ever_new_shapes_on_a_cpu_with_onednn_are_named_if_graphs_do_not_grow() -> None:
    shapes = replace(made(calls=100, shapes=60), has_onednn=True)
    leak = only(find_causes(case(look(200), growth=KERNELS, made=shapes)))
    assert (leak.cause, leak.whose, leak.confidence) == ("onednn_cache", "TensorFlow's", 0.6)
    assert "60 of 100 calls" in leak.evidence and "TF_ENABLE_ONEDNN_OPTS=0" in leak.fix
    traced = replace(RISES, functions=60)
    assert only(find_causes(case(look(200), growth=KERNELS, made=shapes, rises=traced))).cause == "native"
    much = replace(HOST, bytes_per_step=1e6)
    assert only(find_causes(case(look(200), growth=much, made=shapes))).cause == "native"
    others: tuple[dict[str, Any], ...] = ({"has_onednn": False}, {"shapes": 30}, {"shapes": 10, "calls": 10})
    for other in others:
        assert only(find_causes(case(look(200), growth=KERNELS, made=replace(shapes, **other)))).cause == "native"
    assert find_causes(case(look(200), made=shapes)) == ()


def test_a_graph_that_gains_operations_is_named_with_the_line() -> None:
    grown = GrownGraph("Graph", 5000, 300, 100, Place("train.py", 9, "tf.reduce_sum(x)"))
    found = case(look(200, grown_graph=grown), growth=HOST)
    leak = only(find_causes(found))
    assert (leak.cause, leak.where, leak.whose) == ("graph_growth", "train.py:9, tf.reduce_sum(x)", "yours")
    assert "gained 300 operations in 100 steps" in leak.evidence
    few = replace(grown, more=19)
    assert only(find_causes(case(look(200, grown_graph=few), growth=HOST))).cause == "native"
    much = replace(HOST, bytes_per_step=1e6)
    assert only(find_causes(case(look(200, grown_graph=grown), growth=much))).cause == "native"
