"""Plain scripts, each in a process of its own: the one line is exact by itself, or the first line says why not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forks import plain_environment, run_forked

ROOT = Path(__file__).parents[2]
# 4 KiB and 4 bytes of weights, far below what the default allocator counts.
MODEL = """
model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(32, name="body"), keras.layers.Dense(1, name="head")])
model.compile("sgd", "mse")
"""
FIT = """
watch = kmw.MemoryWatch("logs", add_to_logs=True)
history = model.fit(np.ones((160, 32)), np.ones((160, 1)), batch_size=16, epochs=2, verbose=2, callbacks=[watch])
again = kmw.load("logs").report
found = {
    "report": str(watch.report), "again": str(again), "layers": [row.path for row in again.peak.by_layer],
    "names": sorted(history.history), "weights": again.weights_bytes, "traced": again.traced_steps,
    "devices": [[one.name, one.counting, one.limit_bytes, one.remedy] for one in again.run.devices],
}
again.to_html("report.html")
"""
SHOW = "import json; print('FOUND' + json.dumps(found))\n"
DEVICES = """
import tensorflow as tf
from kerasmemwatch.probes.allocators import allocators
found = [[one.info.name, one.info.counting, one.info.limit_bytes] for one in allocators()]
"""


def run(folder: Path, script: str, *arguments: str, **variables: str) -> str:
    (folder / "script.py").write_text(script)
    command = [sys.executable, *arguments, "script.py"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=plain_environment(**variables),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_imported(folder: Path, script: str, **variables: str) -> str:
    """``run`` where TensorFlow and Keras are imported before anything of ours, which spares the seconds of that."""
    path = folder / "script.py"
    path.write_text(script)
    status, output, errors = run_forked(path, environment=plain_environment(**variables), folder=folder)
    assert status == 0, errors
    return output


def found_by(output: str) -> Any:
    [line] = [line for line in output.splitlines() if line.startswith("FOUND")]
    return json.loads(line.removeprefix("FOUND"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("execute", "imports"),
    [
        (run, "import kerasmemwatch as kmw\nimport keras, numpy as np\n"),
        (
            run_imported,
            "import tensorflow as tf, keras, numpy as np\nkeras.utils.set_random_seed(1)\n"
            "import kerasmemwatch as kmw\n",
        ),
        (
            run_imported,
            "import keras, numpy as np\nfrom kerasmemwatch.watch.memory_watch import MemoryWatch\n"
            "import kerasmemwatch as kmw\nimport importlib\nimportlib.reload(kmw)\n",
        ),
    ],
    ids=["kerasmemwatch first", "frameworks first", "reloaded"],
)
def test_a_plain_script_is_exact(tmp_path: Path, execute: Callable[[Path, str], str], imports: str) -> None:
    found = found_by(execute(tmp_path, imports + MODEL + FIT + SHOW))
    # Our own limit, the machine's memory, is nobody's.
    assert found["devices"] == [["CPU:0", "exact", None, ""]]
    assert found["weights"] == 4 * (32 * 32 + 32 + 32 + 1)
    assert {"body", "head"} <= set(found["layers"]) and found["traced"][0] == 2
    assert {"memory/device_peak_mib", "memory/device_in_use_mib"} <= set(found["names"])
    for text in (found["report"], found["again"]):
        assert text.startswith("Memory of run") and "partial" not in text
        assert "exact count of every allocation" in text and "What each layer holds itself" in text


def test_a_model_made_before_the_import_is_told_in_the_first_line(tmp_path: Path) -> None:
    script = "import keras, numpy as np\n" + MODEL + "import kerasmemwatch as kmw\n" + FIT + SHOW
    output = run_imported(tmp_path, script)
    found = found_by(output)
    [[name, counting, limit, remedy]] = found["devices"]
    assert (name, counting, limit) == ("CPU:0", "partial", None) and remedy.startswith("Import kerasmemwatch before")
    for text in (found["report"], found["again"]):
        first = text.splitlines()[0]
        assert first.startswith("CPU:0 is counted in part: import kerasmemwatch before the first model")
        assert "Device peak (partial)" in text and "\nDevice peak  " not in text
        assert "no step has been traced yet" not in text
        assert "no traced step had a larger one" in " ".join(text.split())
    # Neither the epoch's line nor the logs, nor the scalars, call it the peak.
    assert "memory/device_peak_mib" not in output and "memory/partial_device_peak_mib" in output
    assert {"memory/partial_device_peak_mib", "memory/partial_device_in_use_mib"} <= set(found["names"])
    stored = b"".join(path.read_bytes() for path in (tmp_path / "logs").rglob("*tfevents*"))
    assert b"memory/partial_device_peak_mib" in stored and b"memory/device_" not in stored
    page = (tmp_path / "report.html").read_text()
    assert '<p class="alert" role="note">CPU:0 is counted in part: import kerasmemwatch before' in page
    assert "<dt>Device peak (partial)</dt>" in page and "<dt>Device peak</dt>" not in page


@pytest.mark.parametrize(
    ("variables", "counting", "limit"),
    [
        ({"TF_CPU_ALLOCATOR_USE_BFC": "0"}, "partial", None),
        ({"KERASMEMWATCH_EXACT_CPU": "0"}, "partial", None),
        ({"KERASMEMWATCH_DISABLE": "1"}, "partial", None),
        ({"TF_CPU_ALLOCATOR_USE_BFC": "1"}, "exact", None),
        ({"TF_CPU_BFC_MEM_LIMIT_IN_MB": "2048"}, "exact", 2048 * 2**20),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_what_the_user_set_stays(tmp_path: Path, variables: dict[str, str], counting: str, limit: int | None) -> None:
    script = "import kerasmemwatch, os\n" + DEVICES + "found.append({**os.environ})\n" + SHOW
    device, environ = found_by(run_imported(tmp_path, script, **variables))
    assert device == ["CPU:0", counting, limit]
    assert variables.items() <= environ.items()


@pytest.mark.parametrize(("first", "is_noted"), [("", True), ("tf.ones(1)", False)])
def test_a_constant_of_a_graph_before_the_first_operation_makes_no_count_partial(
    tmp_path: Path, first: str, is_noted: bool
) -> None:
    """It settles which allocator serves constants; what operations allocate is counted in any case."""
    script = f"""
import kerasmemwatch
import keras, tensorflow as tf
{first}
class Positions(keras.layers.Layer):
    def call(self, x):
        return x + keras.ops.arange(x.shape[-1], dtype="float32")
Positions()(keras.Input((8,)))
from kerasmemwatch.probes.allocators import allocators
[one] = allocators()
def in_use():
    return tf.config.experimental.get_memory_info("CPU:0")["current"]
before = in_use()
made = tf.raw_ops.Empty(shape=[64], dtype=tf.float32)
print(one.info.counting, bool(one.note), in_use() - before)
"""
    assert run_imported(tmp_path, script) == f"exact {is_noted} 256\n"


def test_a_child_process_takes_no_limit_of_ours_for_the_users(tmp_path: Path) -> None:
    inherited = found_by(run(tmp_path, "import os, kerasmemwatch\nfound = {**os.environ}\n" + SHOW))
    script = "import kerasmemwatch\n" + DEVICES + SHOW
    found = [
        found_by(run_imported(tmp_path, script, **{**inherited, **changes}))
        for changes in ({}, {"KERASMEMWATCH_EXACT_CPU": "0"}, {"TF_CPU_BFC_MEM_LIMIT_IN_MB": "2048"})
    ]
    assert found == [[["CPU:0", "exact", None]], [["CPU:0", "partial", None]], [["CPU:0", "exact", 2048 * 2**20]]]


@pytest.mark.long
def test_run_has_no_limit_that_is_reported(tmp_path: Path) -> None:
    script = "import keras, numpy as np\n" + MODEL + "model.fit(np.ones((64, 32)), np.ones((64, 1)), verbose=0)\n"
    run(tmp_path, script, "-m", "kerasmemwatch", "run")
    shown = subprocess.run(
        [sys.executable, "-m", "kerasmemwatch", "show", "logs", "--json"],
        cwd=tmp_path,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    run_info = json.loads(shown.stdout)["run"]
    assert [(one["counting"], one["limit_bytes"]) for one in run_info["devices"]] == [("exact", None)]
    assert "TF_CPU_BFC_MEM_LIMIT_IN_MB" not in run_info["configuration"]


def test_tensorboards_process_is_left_alone(tmp_path: Path) -> None:
    script = """
import os, sys
before = dict(os.environ)
from tensorboard import main, program
server = program.TensorBoard()  # looks up and loads every plugin
assert "kerasmemwatch.tensorboard_plugin.loader" in sys.modules, "The plugin was not loaded, so this shows nothing."
print(dict(os.environ) == before, "keras" in sys.modules)
"""
    assert run(tmp_path, script) == "True False\n"


def test_the_doctor_finds_exact_counting_and_what_turns_it_off(tmp_path: Path) -> None:
    script = "from kerasmemwatch.commands.doctor import diagnose\nfound = [vars(one) for one in diagnose()]\n" + SHOW
    [on] = [one for one in found_by(run_imported(tmp_path, script)) if one["what"] == "Memory of CPU:0"]
    assert (on["state"], on["remedy"]) == ("yes", "")
    [off] = [
        one
        for one in found_by(run_imported(tmp_path, script, KERASMEMWATCH_EXACT_CPU="0"))
        if one["what"] == "Memory of CPU:0"
    ]
    assert (off["state"], off["remedy"]) == ("partly", "Start Python without KERASMEMWATCH_EXACT_CPU=0.")


def test_the_readme_s_first_example_is_exact_as_it_stands(tmp_path: Path) -> None:
    script = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert "import kerasmemwatch" in script and "fit(" in script
    text = run(tmp_path, script)
    assert "exact count of every allocation" in text and "What each layer holds itself" in text
    assert "partial" not in text and "no step has been traced" not in text
