"""What importing the package loads, which module may import which, and how large folders, modules and functions are."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import kerasmemwatch

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "kerasmemwatch"
FRAMEWORKS = {"keras", "tensorflow", "jax", "torch"}

# From the bottom up: packages, and the modules beside them. Imports go to earlier lines, or stay within a package,
# where they make no circle; those of one line know nothing of each other.
ORDER = """
_version errors switches names
compat
units faults exact_cpu
records
leaks.verdicts
environment
probes analysis.steps
analysis
storage.codecs
storage.files
storage.sinks
storage
attribution.events
attribution.variables
attribution.live
attribution.hooks
attribution.owners
attribution.xla
attribution
leaks
sampling tracing testing
out_of_memory
reports.text reports.figures
reports.html
reports
recording
comparison
watch.search
watch
watch.tapes watch.model_summary
tensorboard_plugin
commands.run
commands
_startup
cli
__main__
__init__
"""
# Adapters to Keras and TensorFlow; nothing else loads a framework, not even inside a function.
MAY_LOAD = {
    "attribution.hooks.error_stacks": {"tensorflow"},
    "attribution.hooks.gradient_hooks": {"tensorflow"},
    "attribution.hooks.layer_hooks": {"keras"},
    "attribution.live.growing_values": {"tensorflow"},
    "attribution.live.iterator_buffers": {"tensorflow"},
    "commands.demo": {"keras"},
    "commands.doctor": {"tensorflow"},
    "commands.run.autowatch": {"keras"},
    "watch.budgeted_memory": {"keras"},
    "watch.callback_lists": {"keras"},
    "watch.factory": {"keras"},
    "watch.fit_watcher": {"keras"},
    "watch.memory_budget": {"keras"},
    "watch.model_summary.gradient_registry": {"tensorflow"},
    "watch.model_summary.model_state": {"keras", "tensorflow"},
    "watch.model_summary.model_summary": {"keras", "tensorflow"},
    "watch.model_summary.zero_batch": {"keras", "tensorflow"},
    "watch.progress_bar": {"keras"},
    "watch.tapes.first_call": {"tensorflow"},
    "watch.tapes.implicit_session": {"tensorflow"},
    "watch.tapes.memory_tape": {"tensorflow"},
}


@functools.cache
def modules(top: Path = PACKAGE) -> dict[str, str]:
    """The source of each module, by its name without the package's."""
    found = {}
    for path in sorted(top.rglob("*.py")):
        name = ".".join(path.relative_to(top).with_suffix("").parts)
        found[name.removesuffix(".__init__") if "." in name else name] = path.read_text()
    return found


def imports(source: str) -> tuple[str, ...]:
    """Every module that a source imports, at the top or in a function; not what is for type checkers only."""
    return _imports(source, ROOT)


@functools.cache
def _imports(source: str, root: Path) -> tuple[str, ...]:
    return tuple(_imported(source, root))


def _imported(source: str, root: Path) -> Iterator[str]:
    for node in ast.walk(_without_type_checking(ast.parse(source))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import"
            for alias in node.names:
                # `from package import module` imports the module, `from module import name` only the module.
                full = f"{node.module}.{alias.name}"
                is_module = (root / full.replace(".", "/")).with_suffix(".py").exists()
                yield full if is_module else str(node.module)


def _without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [
        node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return tree


def own_imports(source: str) -> set[str]:
    names = {name for name in imports(source) if name.split(".")[0] == "kerasmemwatch"}
    return {name.removeprefix("kerasmemwatch").removeprefix(".") or "__init__" for name in names}


def upward(sources: dict[str, str], order: str) -> list[str]:
    """The imports that go up, sideways or in a circle, and the modules without a place."""
    height = {name: level for level, line in enumerate(order.split("\n")) for name in line.split()}
    places = {name: _place(name, height) for name in sources}
    wrong = [f"{name} has no place" for name, place in places.items() if not place]
    within: dict[str, set[str]] = {}
    for name, source in sources.items():
        for other in own_imports(source) - {name}:
            here, there = places[name], places.get(other, "")
            if here == there:
                within.setdefault(name, set()).add(other)
            elif height.get(there, -1) >= height.get(here, 99):
                wrong.append(f"{name} -> {other}")
    try:
        graphlib.TopologicalSorter(within).prepare()
    except graphlib.CycleError as error:
        wrong.append(" -> ".join(error.args[1]))
    return wrong


def _place(name: str, height: dict[str, int]) -> str:
    """The nearest package with a place, or the module itself; ``""`` if none has."""
    while name and name not in height:
        name = name.rpartition(".")[0]
    return name


def frameworks(sources: dict[str, str], may_load: dict[str, set[str]]) -> list[str]:
    """The imports of a framework where none may be."""
    return [
        f"{name} -> {framework}"
        for name, source in sources.items()
        for framework in sorted({module.split(".")[0] for module in imports(source)} & FRAMEWORKS)
        if framework not in may_load.get(name, set())
    ]


def test_imports_go_down_the_layers() -> None:
    assert upward(modules(), ORDER) == []


def test_only_adapters_import_frameworks() -> None:
    assert frameworks(modules(), MAY_LOAD) == []


def test_what_adapters_may_load_they_do() -> None:
    found = set(frameworks(modules(), {}))
    assert found == {f"{name} -> {framework}" for name, loaded in MAY_LOAD.items() for framework in loaded}


def test_probes_and_sinks_never_see_the_recorder() -> None:
    sources = modules()
    for name in sources:
        if name.startswith(("probes.", "storage.sinks.")):
            assert not {"sampling.recorder", "watch.memory_watch"} & reachable(name, sources), name


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
    assert upward({"a": source, "b": ""}, "a\nb") == ["a -> b"]
    assert upward({"a": source, "b": ""}, "a b") == ["a -> b"]
    assert upward({"a": source, "b": ""}, "b\na") == []
    assert upward({"a": source, "b": ""}, "b")[0] == "a has no place"


def test_the_check_sees_arrows_between_packages_and_circles_within() -> None:
    up = {"low.a": "import kerasmemwatch.high.b", "high.b": ""}
    assert upward(up, "low\nhigh") == ["low.a -> high.b"]
    assert upward(up, "high\nlow") == []
    circle = {"low.a": "import kerasmemwatch.low.b", "low.b": "import kerasmemwatch.low.a"}
    assert upward(circle, "low") == ["low.a -> low.b -> low.a"]
    assert upward({**circle, "low.b": ""}, "low") == []


@pytest.mark.parametrize(
    "source", ["import keras", "def f():\n    import keras.src.x as k", "from keras.layers import Dense"]
)
def test_the_check_sees_a_framework(source: str) -> None:
    assert frameworks({"a": source}, {}) == ["a -> keras"]
    assert frameworks({"a": source}, {"a": {"keras"}}) == []


MAX_MODULES, MAX_LINES, MAX_MEDIAN_LINES, MAX_FUNCTION_LINES = 16, 300, 120, 80


def layout_faults(top: Path) -> list[str]:
    """The folders, modules and functions that are too large, and the packages that don't say what lives in them."""
    sources = {path.relative_to(top).as_posix(): path.read_text() for path in sorted(top.rglob("*.py"))}
    lines = {name: len(source.splitlines()) for name, source in sources.items() if not name.endswith("__init__.py")}
    modules_in = Counter(Path(name).parent.as_posix() for name in lines)
    median = statistics.median(lines.values())
    return [
        *(f"{folder}: {count} modules" for folder, count in modules_in.items() if count > MAX_MODULES),
        *(f"{name}: {count} lines" for name, count in lines.items() if count > MAX_LINES),
        *([f"median: {median} lines"] if median > MAX_MEDIAN_LINES else []),
        *(fault for name, source in sources.items() for fault in _long_functions(name, source)),
        *(
            f"{name}: its docstring has fewer than two sentences"
            for name, source in sources.items()
            if name.endswith("__init__.py") and _num_sentences(ast.get_docstring(ast.parse(source))) < 2
        ),
    ]


def _long_functions(name: str, source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = (node.end_lineno or node.lineno) - node.lineno + 1
            if count > MAX_FUNCTION_LINES:
                yield f"{name}: {node.name}() has {count} lines"


def _num_sentences(text: str | None) -> int:
    return len(re.findall(r"[.!?](?=\s|$)", text or ""))


def test_folders_modules_and_functions_are_small() -> None:
    assert layout_faults(PACKAGE) == []


GOOD_INIT = '"""What lives here. And what does not."""\n'


@pytest.mark.parametrize(
    ("files", "faults"),
    [
        ({}, []),
        ({f"low/m{number}.py": "" for number in range(16)}, []),
        ({f"low/m{number}.py": "" for number in range(17)}, ["low: 17 modules"]),
        ({"low/b.py": "\n" * 300, "c.py": "", "d.py": ""}, []),
        ({"low/b.py": "\n" * 301, "c.py": "", "d.py": ""}, ["low/b.py: 301 lines"]),
        ({"a.py": "\n" * 120}, []),
        ({"a.py": "\n" * 121}, ["median: 121 lines"]),
        ({"a.py": "class C:\n  def f():\n" + "    1\n" * 79}, []),
        ({"a.py": "class C:\n  def f():\n" + "    1\n" * 80}, ["a.py: f() has 81 lines"]),
        (
            {"low/__init__.py": '"""Only ``a.b`` of it."""'},
            ["low/__init__.py: its docstring has fewer than two sentences"],
        ),
        ({"low/__init__.py": ""}, ["low/__init__.py: its docstring has fewer than two sentences"]),
    ],
)
def test_the_check_sees_what_is_too_large(files: dict[str, str], faults: list[str], tmp_path: Path) -> None:
    for name, source in {"__init__.py": GOOD_INIT, "a.py": "", "low/__init__.py": GOOD_INIT, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    assert layout_faults(tmp_path) == faults


def loaded_after(code: str) -> set[str]:
    """The top-level modules of an interpreter that ran some code."""
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


HEAVY = {"numpy", "tensorflow", "keras", "psutil", "plotly", "rich", "tensorboard", "google_crc32c", "pynvml"}


@pytest.mark.parametrize(
    "code", ["import kerasmemwatch", "import kerasmemwatch; dir(kerasmemwatch); kerasmemwatch.__version__"]
)
def test_importing_the_package_loads_nothing_heavy(code: str) -> None:
    assert not loaded_after(code) & HEAVY


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    assert not loaded_after("import kerasmemwatch.cli") & HEAVY


def test_the_pytest_plugin_loads_neither_the_package_nor_anything_heavy() -> None:
    # pytest loads it wherever the package is installed, and importing that has an effect.
    assert not loaded_after("import kerasmemwatch_pytest") & {*HEAVY, "kerasmemwatch"}


def test_a_heavy_import_would_be_seen() -> None:
    assert "numpy" in loaded_after("import kerasmemwatch, numpy")


@pytest.mark.parametrize("name", ["load", "runs", "Recording", "Report"])
def test_what_needs_no_framework_loads_none(name: str) -> None:
    assert not loaded_after(f"from kerasmemwatch import {name}") & FRAMEWORKS


def test_every_public_name_is_listed_and_lazy() -> None:
    assert set(kerasmemwatch.__all__) <= set(dir(kerasmemwatch))
    assert set(kerasmemwatch.__all__) == {"__version__", *kerasmemwatch._EXPORTS, *kerasmemwatch._PACKAGES}
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


# Python's own, and those of named tuples.
_PLAIN_PRIVATE = {
    "_replace",
    "_asdict",
    "_fields",
    "_getframe",
    "_current_frames",
    "_xoptions",
    "_args_from_interpreter_flags",
}
_PRIVATE_TEXT = re.compile(r"tensorflow\.(python|core|tsl|compiler)\b|\bTFE_|pywrap_|keras\.src\b")
# What a plugin of TensorBoard's derives from.
_PLUGIN_BASE = "tensorboard.plugins"


def private_names(sources: dict[str, str]) -> list[str]:
    """Where private names of TensorFlow, Keras or TensorBoard are used, outside of ``compat``."""
    trees = {name: ast.parse(source) for name, source in sources.items()}
    own = _PLAIN_PRIVATE.union(*map(_defined, trees.values()))
    found = []
    for name, tree in trees.items():
        if name.partition(".")[0] == "compat":
            continue
        found += [f"{name}: {match.group()}" for match in _PRIVATE_TEXT.finditer(sources[name])]
        found += [
            f"{name}: {module}"
            for module in imports(sources[name])
            if module.split(".")[0] == "tensorboard" and module != _PLUGIN_BASE
        ]
        found += [f"{name}: {used}" for used in _used(tree) if used not in own]
    return found


def _defined(tree: ast.Module) -> set[str]:
    """The names with an underscore that a module defines itself, its objects' attributes among them."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            found.add(node.attr)
    return found


def _used(tree: ast.Module) -> Iterator[str]:
    """The private attributes of others' objects that a module uses, by dot or by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not _is_self(node.value) and _is_private(node.attr):
            yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr", "patched"):
            for value in node.args[1:2]:
                if isinstance(value, ast.Constant) and _is_private(str(value.value)):
                    yield str(value.value)


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_private_names_of_libraries_are_in_compat_only() -> None:
    assert private_names(modules()) == []


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    from tensorflow.python.eager import context",
        "import keras.src.backend",
        "from tensorboard.compat.proto import event_pb2",
        "x._layers",
        "getattr(x, '_layers', None)",
        "sys.modules.get('tensorflow.python.eager.context')",
        "run.TFE_Py_FastPathExecute()",
    ],
)
def test_the_check_sees_a_private_name(source: str) -> None:
    assert private_names({"a": source})
    assert not private_names({"compat.a": source})


def test_looking_at_compat_loads_no_framework() -> None:
    code = "import kerasmemwatch.compat.allocator_reads, kerasmemwatch.compat.keras, kerasmemwatch.compat.tensorboard"
    assert not loaded_after(code) & HEAVY
