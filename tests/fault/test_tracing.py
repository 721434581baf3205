"""Steps are traced while something goes wrong or is odd: training goes on as without, and what is shown is true."""

from __future__ import annotations

import json

import pytest

MODES = ["graph", "eager", "xla"]
DENSE_BYTES = (16 * 16 + 16) * 4
OUTPUT_BYTES = 8 * 16 * 4


@pytest.fixture(scope="module")
def found(execute_forked):
    done = execute_forked("traced_fits.py", TF_CPU_ALLOCATOR_USE_BFC="1")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def run(execute_forked):
    """Run one case in a process of its own, and return what it printed."""

    def run(*arguments, **environment):
        done = execute_forked("traced_process.py", *arguments, **{"TF_CPU_ALLOCATOR_USE_BFC": "1", **environment})
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return run


# -- layers and fits of many kinds ---------------------------------------------------------------------------------

KINDS = [
    "tf.function", "helper", "recompute", "cond", "custom gradient", "twice", "makes layers", "unrolled", "stateful",
    "class weight", "same names",
]  # fmt: skip
# A function within the program, and a gradient of its own.
COMPILED = ["recompute", "cond"]
ALL = [f"{kind} {mode}" for kind in KINDS for mode in MODES if mode != "xla" or kind in COMPILED]
ALL += ["py_function graph", "py_function eager", "remat eager", "odd names eager"]
ALL += ["steps_per_execution graph", "steps_per_execution xla"]


@pytest.mark.long
@pytest.mark.every
@pytest.mark.parametrize("name", ALL)
def test_training_is_as_without(found, name):
    result = found[name]
    assert result["identical"]
    assert result["patched"] == [] and result["own function"]
    assert result["messages"] == []
    assert len(result["steps"]) == 2
    assert result["printable"]
    assert [note for note in result["notes"] if "XLA works in one block" not in note] == []


@pytest.mark.long
@pytest.mark.every
@pytest.mark.parametrize("mode", ["graph", "eager"])
@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("tf.function", ["one/inner", "two/inner"]),
        ("recompute", ["again/inner"]),
        ("cond", ["branching/inner"]),
        ("twice", ["twice/inner"]),
        ("class weight", ["twice/inner"]),
        ("same names", ["one/same", "two/same"]),
    ],
)
def test_gradients_are_their_layers(found, name, mode, layers):
    gradients = found[f"{name} {mode}"]["gradients"]
    assert {path: gradients.get(path) for path in layers} == dict.fromkeys(layers, DENSE_BYTES)
    # What else has gradients are the last layers.
    assert {path for path in gradients if path not in layers} <= {"head", "one/dense", "two/dense_1"}


@pytest.mark.long
@pytest.mark.every
@pytest.mark.parametrize("mode", ["graph", "eager"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tf.function", {"one": OUTPUT_BYTES, "two": OUTPUT_BYTES}),
        ("recompute", {"again/inner": OUTPUT_BYTES}),
        ("cond", {"branching/inner": OUTPUT_BYTES}),
        ("twice", {"twice/inner": 2 * OUTPUT_BYTES}),
        ("same names", {"one/same": OUTPUT_BYTES, "two/same": OUTPUT_BYTES}),
    ],
)
def test_activations_are_their_layers(found, name, mode, expected):
    activations = found[f"{name} {mode}"]["activations"]
    assert {path: activations.get(path) for path in expected} == expected


@pytest.mark.long
def test_odd_names_are_paths_like_others(found):
    gradients = found["odd names eager"]["gradients"]
    for name in ("..", "<img src=x onerror=alert(1)>", "n" * 200, "naïve-🦒", "[bold]x", "gradient_tape"):
        assert gradients[name] == DENSE_BYTES


@pytest.mark.long
def test_an_executions_last_step_names_it(found):
    # Asked for 3 and 6; four steps are one execution.
    assert found["steps_per_execution graph"]["steps"] == [4, 8]


@pytest.mark.long
def test_steps_that_never_come_are_not_traced(found):
    result = found["never comes graph"]
    assert result["steps"] == [] and result["coverage"] is None and result["messages"] == []
    assert result["identical"]


# -- exceptions ----------------------------------------------------------------------------------------------------

ERRORS = {"interrupt": "KeyboardInterrupt", "exit": "SystemExit"}
RAISING = ["layer graph", "layer eager", "layer xla", "backward graph", "backward eager"]
RAISING += ["interrupt eager", "exit graph", "loss eager", "callback graph"]


@pytest.mark.long
@pytest.mark.every
@pytest.mark.parametrize("name", RAISING)
def test_an_exception_leaves_nothing_behind(found, name):
    result = found[f"raises {name}"]
    # Keras puts the arguments of a layer's call into a new exception of the same class.
    assert result["raised"] == ERRORS.get(name.split()[0], "OSError")
    assert name.split()[0] in ("interrupt", "exit") or "this one" in result["text"]
    assert result["ours"] == []
    assert result["patched"] == result["patched without"] == []
    assert not result["armed after"]
    assert result["messages"] == []


@pytest.mark.long
@pytest.mark.parametrize("mode", ["graph", "eager"])
def test_tensorflows_own_errors_do_not_show_us(found, mode):
    # TensorFlow writes the stack under which an operation was made into the text.
    result = found[f"raises run {mode}"]
    assert result["raised"] == "InvalidArgumentError"
    assert result["ours"] == [] and result["patched"] == [] and not result["armed"]


@pytest.mark.long
def test_a_wrapper_that_waits_takes_itself_out(found):
    result = found["raises callback graph"]
    # It was put on before the other callback raised, and has taken itself out without the watch.
    assert result["armed"] and not result["armed without"]


# -- several at once -----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_of_two_watches_one_traces_and_the_other_says_so(found):
    result = found["two watches"]
    assert sorted(result["steps"]) == [[], [2, 4, 6]]
    assert result["patched"] == [] and result["own function"]
    [message] = result["messages"]
    assert "another watch traced a step at the same time" in message


@pytest.mark.long
def test_two_threads_take_turns(found):
    result = found["two threads"]
    assert result["errors"] == []
    assert result["rows"] == [16, 16]
    assert result["traced"] >= 1
    assert result["patched"] == []


# -- what a process may lack ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mode", "consequence"),
    [
        ("framework.func_graph.FuncGraph", "graph", "The operations of graphs are told apart by their names only."),
        ("eager.record.record_operation", "graph", "gradients of a function's own"),
        ("eager.execute.record_gradient", "eager", "What the backward pass makes may have no layer"),
        ("pywrap_tfe.TFE_Py_RegisterGradientFunction", "eager", "What the backward pass makes may have no layer"),
        ("pywrap_tfe.TFE_Py_FastPathExecute", "eager", "What the backward pass makes in eager mode has no layer."),
        ("util.tf_stack.StackTraceFilter", "graph", "show our functions"),
    ],
)
def test_without_a_private_name_the_rest_is_right(run, name, mode, consequence):
    told = run("missing", f"tensorflow.python.{name}", mode)
    assert told["rows"] == 8 and told["steps"] == [2, 4]
    assert told["messages"] == [] and not told["patched"]
    [note] = [note for note in told["notes"] if "This TensorFlow is not as expected" in note]
    assert consequence in note and name.rpartition(".")[2] in note
    assert note[:60] in told["report"].replace("\n", " ")
    # Weights by place, gradients by place or size, activations by their life.
    assert told["by layer"]["dense"] == [DENSE_BYTES, DENSE_BYTES, OUTPUT_BYTES]


@pytest.mark.parametrize(
    "name",
    [
        "tensorflow.python.profiler.internal._pywrap_profiler.ProfilerSession",
        "tensorflow.tsl.profiler.protobuf.xplane_pb2.XSpace",
    ],
)
def test_without_a_profiler_nothing_is_traced(run, name):
    told = run("missing", name, "graph")
    assert told["rows"] == 8 and told["steps"] == [] and not told["patched"]
    [message] = told["messages"]
    assert name.rpartition(".")[2] in message
    # What is not known is not nothing.
    assert told["by layer"]["dense"] == [DENSE_BYTES, None, None]


def test_a_full_disk_costs_the_traces_only(run):
    told = run("full")
    assert told["rows"] == 8 and told["steps"] == [] and not told["patched"]
    [message] = told["messages"]
    assert "File too large" in message and "Training goes on" in message


def test_without_a_memory_disk_a_temporary_directory_serves(run, tmp_path):
    told = run("unwritable", "/nonexistent", tmp_path)
    assert told["steps"] == [2, 4] and told["messages"] == []
    assert list(tmp_path.iterdir()) == []


def test_without_any_directory_nothing_is_traced(run):
    told = run("unwritable", "/nonexistent", "/nonexistent")
    assert told["rows"] == 8 and told["steps"] == []
    [message] = told["messages"]
    assert "No such file or directory" in message


# -- what an allocator tells ---------------------------------------------------------------------------------------


def test_an_allocator_that_tells_of_large_pieces_only(run):
    # 16 x 16,384 floats are 1 MiB.
    told = run("counting", 16_384, TF_CPU_ALLOCATOR_USE_BFC="0")
    assert told["steps"] == [2, 4]
    [note] = told["notes"]
    assert "only allocations of 256.0 KiB or more are known" in note and "TF_CPU_ALLOCATOR_USE_BFC=1" in note
    assert "only allocations of 256.0 KiB or more are known" in " ".join(told["report"].split())


@pytest.mark.long
@pytest.mark.parametrize("environment", [{}, {"TF_ENABLE_ONEDNN_OPTS": "0"}])
def test_an_allocator_that_tells_nothing(run, environment):
    told = run("counting", 16, TF_CPU_ALLOCATOR_USE_BFC="0", **environment)
    assert told["rows"] == 8 and told["steps"] == [] and told["coverage"] is None
    [message] = told["messages"]
    assert "reported no allocation" in message and "TF_CPU_ALLOCATOR_USE_BFC=1" in message
    report = " ".join(told["report"].split())
    assert "What layers hold at the peak is not known" in report and "reported no allocation" in report
    assert "What each layer holds" not in report


# -- a process of many parts ---------------------------------------------------------------------------------------


def test_a_fork_in_a_traced_step_leaves_the_parents_trace_whole(run):
    told = run("fork")
    assert told["steps"] == [2, 4] and told["messages"] == [] and not told["patched"]
    assert told["by layer"]["dense"] == [DENSE_BYTES, DENSE_BYTES, OUTPUT_BYTES]
    assert told["status"] == 7  # the child took the hooks out as it left


@pytest.mark.long
def test_replicas_have_a_copy_of_each_weight(run):
    told = run("mirrored")
    assert told["identical"] and told["steps"] == [2, 4] and told["messages"] == [] and not told["patched"]
    assert told["by layer"]["dense"][0] == 2 * DENSE_BYTES


@pytest.mark.long
def test_a_model_that_is_deeper_than_pythons_stack(run):
    told = run("layers", 217)
    assert told["steps"] == [2, 4] and told["messages"] == []
    kernel_bytes = 16 * 16 * 4
    # The tanh after a layer with weights works in place. Of the last one's output the gradient needs the shape only.
    expected = {f"layer_{number}": [0, 0, OUTPUT_BYTES] for number in range(216) if number % 8 > 1}
    expected |= {f"layer_{number}": [kernel_bytes, kernel_bytes, OUTPUT_BYTES] for number in range(0, 216, 8)}
    expected["layer_216"] = [kernel_bytes, kernel_bytes, 0]
    assert {path: held for path, held in told["by layer"].items() if path.startswith("layer_")} == expected
