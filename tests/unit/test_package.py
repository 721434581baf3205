"""What importing the package loads, and which module may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kerasmemwatch

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "kerasmemwatch"
FRAMEWORKS = {"keras", "tensorflow", "jax", "torch"}

# From the bottom up. A module imports modules of earlier lines only; those of one line know nothing of each other.
LAYERS = """
_version errors switches
exact_cpu
units samples notebook_value
records
json_fields
series schema timeline probes.base files environment directory_lock
journal event_file run_codec chart cost_share
run_claim
probes.peak_window probes.limits probes.cuda_devices forecast faults flusher
attribution.live_objects attribution.capture_folder
step_devices trends
recent_rows live_set step_codec attribution.kept_tapes layer_tree workers
layer_table step_log shown_step tape_memory step_graphs model_state example_batch trace_schedule
untraced_peaks
traced_before
attribution.hlo_messages attribution.hlo_program
attribution.hlo_op_names
attribution.hlo_backward
attribution.xla_buffers
attribution.other_fits attribution.allocator_names
attribution.error_stacks attribution.owner_frames
attribution.traced_graph
attribution.patches attribution.owner_stack attribution.event_order attribution.host_spans
attribution.allocation_events attribution.trace_capture attribution.tensor_places
attribution.xla_runs attribution.allocations attribution.batch_parts attribution.categories attribution.op_names
attribution.in_place attribution.op_owners attribution.weight_gradients attribution.waiting_batches
attribution.device_frames
attribution.scratch attribution.row_frames attribution.call_spans attribution.rewritten_calls
attribution.holdings attribution.variable_size attribution.recursion_room
attribution.layer_paths attribution.optimizer_slots
attribution.variable_ledger
attribution.inventory attribution.stack_room
attribution.armed_step
attribution.known_buffers attribution.watched
attribution.data_on_gpu
attribution.first_calls attribution.chunk_places attribution.xla_categories attribution.variable_parts
attribution.captured_step attribution.batches_ahead
attribution.hook_notes attribution.planned_events
attribution.variable_moves
attribution.replicas
attribution.baseline attribution.tensorflow_hooks attribution.awaited_call attribution.earlier_models
attribution.assembly attribution.layer_hooks attribution.variable_sightings
attribution.fit_kind
attribution.xla_expansion
probes.allocators
attribution.allocators_by_device
attribution.silent_allocators
attribution.step_analysis
attribution.captures attribution.callback_turns
attribution.step_tracer attribution.gap_tracer
alike_fits
peak_traces
tracing
attribution.watched_models
probes.host probes.nvml probes.tensorflow
sinks.base
sinks.tensorboard outbox
run_parts
reader
store
probe_set row_log snapshot stages
process_exit
recorder
options report
apart
notes driver_facts
peak_place outlook
peak_story
peak_text
figures.palette figures.labels figures.thinning
figures.layout figures.moments figures.rectangles
figures.overview figures.peak figures.notebook
figures.step_timeline figures.layers figures.growth figures.comparison
figures.allocations
figures.views
headline
text recording
comparison html_report.tables
html_report.sections html_report.notebook
html_report.page
callback_lists session_step step_loop
epoch_line
probes attribution sinks figures html_report tensorboard_plugin
recording_parts
random_state
watcher
callbacks budget session
tape_session
tape
model_summary
tensorboard_plugin.assets tensorboard_plugin.queries tensorboard_plugin.choices
tensorboard_plugin.views
tensorboard_plugin.plugin
tensorboard_plugin.loader
shared_watch doctor demo launch
autowatch
_startup.sitecustomize
cli
__main__
__init__
"""
# Looked up when called: the report writes itself, and text knows the report.
KNOWN = {
    ("notebook_value", "html_report.notebook"),
    ("report", "text"),
    ("report", "figures.notebook"),
    ("report", "figures.views"),
    ("report", "html_report.page"),
}
# Adapters to Keras and TensorFlow; nothing else loads a framework, not even inside a function.
MAY_LOAD = {
    "callbacks": {"keras"},
    "recording_parts": {"keras"},
    "tape": {"tensorflow"},
    "tape_session": {"tensorflow"},
    "budget": {"keras"},
    "epoch_line": {"keras"},
    "callback_lists": {"keras"},
    "autowatch": {"keras"},
    "demo": {"keras"},
    "model_summary": {"keras", "tensorflow"},
    "example_batch": {"keras", "tensorflow"},
    "model_state": {"keras", "tensorflow"},
    "random_state": {"keras", "tensorflow"},
    "step_graphs": {"tensorflow"},
    "doctor": {"tensorflow"},
    "probes.allocators": {"tensorflow"},
    "attribution.layer_hooks": {"keras"},
    "attribution.tensorflow_hooks": {"tensorflow"},
    "attribution.error_stacks": {"tensorflow"},
    "attribution.rewritten_calls": {"tensorflow"},
    "attribution.trace_capture": {"tensorflow"},
    "attribution.step_analysis": {"tensorflow"},
    "attribution.first_calls": {"tensorflow"},
    "attribution.tensor_places": {"tensorflow"},
    "attribution.awaited_call": {"tensorflow"},
    "attribution.variable_sightings": {"tensorflow"},
    "attribution.waiting_batches": {"tensorflow"},
}


def modules(top: Path = PACKAGE) -> dict[str, str]:
    """The source of each module, by its name without the package's."""
    found = {}
    for path in sorted(top.rglob("*.py")):
        name = ".".join(path.relative_to(top).with_suffix("").parts)
        found[name.removesuffix(".__init__") if "." in name else name] = path.read_text()
    return found


def imports(source: str) -> Iterator[str]:
    """Every module that a source imports, at the top or in a function; not what is for type checkers only."""
    for node in ast.walk(_without_type_checking(ast.parse(source))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import"
            for alias in node.names:
                # `from package import module` imports the module, `from module import name` only the module.
                full = f"{node.module}.{alias.name}"
                is_module = (ROOT / full.replace(".", "/")).with_suffix(".py").exists()
                yield full if is_module else str(node.module)


def _without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return tree


def own_imports(source: str) -> set[str]:
    names = {name for name in imports(source) if name.split(".")[0] == "kerasmemwatch"}
    return {name.removeprefix("kerasmemwatch").removeprefix(".") or "__init__" for name in names}


def upward(sources: dict[str, str], layers: str, known: set[tuple[str, str]]) -> list[str]:
    """The imports that go up or sideways, and the modules without a place."""
    height = {name: level for level, line in enumerate(layers.split("\n")) for name in line.split()}
    wrong = [f"{name} has no place" for name in sources if name not in height]
    for name, source in sources.items():
        for other in own_imports(source):
            if (name, other) not in known and height.get(other, -1) >= height.get(name, 99):
                wrong.append(f"{name} -> {other}")
    return wrong


def frameworks(sources: dict[str, str], may_load: dict[str, set[str]]) -> list[str]:
    """The imports of a framework where none may be."""
    return [
        f"{name} -> {framework}"
        for name, source in sources.items()
        for framework in sorted({module.split(".")[0] for module in imports(source)} & FRAMEWORKS)
        if framework not in may_load.get(name, set())
    ]


def test_imports_go_down_the_layers() -> None:
    assert upward(modules(), LAYERS, KNOWN) == []


def test_the_known_exceptions_are_still_needed() -> None:
    found = upward(modules(), LAYERS, set())
    assert sorted(found) == sorted(f"{name} -> {other}" for name, other in KNOWN)


def test_only_adapters_import_frameworks() -> None:
    assert frameworks(modules(), MAY_LOAD) == []


def test_what_adapters_may_load_they_do() -> None:
    found = set(frameworks(modules(), {}))
    assert found == {f"{name} -> {framework}" for name, loaded in MAY_LOAD.items() for framework in loaded}


def test_probes_and_sinks_never_see_the_recorder() -> None:
    sources = modules()
    for name in sources:
        if name.split(".")[0] in ("probes", "sinks"):
            assert not {"recorder", "callbacks"} & reachable(name, sources), name


def reachable(name: str, sources: dict[str, str]) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for other in own_imports(sources[waiting.pop()]) - found:
            found.add(other)
            waiting.append(other)
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import kerasmemwatch.b",
        "from kerasmemwatch.b import x",
        "from kerasmemwatch import b",
        "def f():\n    from kerasmemwatch.b import x",
        "class C:\n    def f(self):\n        import kerasmemwatch.b as c",
        "try:\n    import kerasmemwatch.b\nexcept ImportError:\n    pass",
    ],
)
def test_the_check_sees_an_arrow_upwards(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kerasmemwatch").mkdir()
    (tmp_path / "kerasmemwatch" / "b.py").touch()
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert upward({"a": source, "b": ""}, "a\nb", set()) == ["a -> b"]
    assert upward({"a": source, "b": ""}, "a b", set()) == ["a -> b"]
    assert upward({"a": source, "b": ""}, "b\na", set()) == []
    assert upward({"a": source, "b": ""}, "a\nb", {("a", "b")}) == []
    assert upward({"a": source, "b": ""}, "b", set()) == ["a has no place"]


@pytest.mark.parametrize(
    "source", ["import keras", "def f():\n    import keras.src.x as k", "from keras.layers import Dense"]
)
def test_the_check_sees_a_framework(source: str) -> None:
    assert frameworks({"a": source}, {}) == ["a -> keras"]
    assert frameworks({"a": source}, {"a": {"keras"}}) == []


def loaded_after(code: str) -> set[str]:
    """The top-level modules of an interpreter that ran some code."""
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


HEAVY = {"numpy", "tensorflow", "keras", "psutil", "plotly", "rich", "scipy", "tensorboard", "google_crc32c", "pynvml"}


@pytest.mark.parametrize(
    "code", ["import kerasmemwatch", "import kerasmemwatch; dir(kerasmemwatch); kerasmemwatch.__version__"]
)
def test_importing_the_package_loads_nothing_heavy(code: str) -> None:
    assert not loaded_after(code) & HEAVY


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    assert not loaded_after("import kerasmemwatch.cli") & HEAVY


def test_a_heavy_import_would_be_seen() -> None:
    assert "numpy" in loaded_after("import kerasmemwatch, numpy")


@pytest.mark.parametrize("name", ["load", "runs", "Recording", "Report"])
def test_what_needs_no_framework_loads_none(name: str) -> None:
    assert not loaded_after(f"from kerasmemwatch import {name}") & FRAMEWORKS


def test_every_public_name_is_listed_and_lazy() -> None:
    assert set(kerasmemwatch.__all__) <= set(dir(kerasmemwatch))
    assert set(kerasmemwatch.__all__) == {"__version__", *kerasmemwatch._EXPORTS}
    assert kerasmemwatch.load is sys.modules["kerasmemwatch.recording"].load
    sources = modules()
    for name, module in kerasmemwatch._EXPORTS.items():
        source = sources[module.removeprefix("kerasmemwatch.")]
        assert name in [
            node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef | ast.FunctionDef)
        ]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kerasmemwatch.nothing  # noqa: B018
