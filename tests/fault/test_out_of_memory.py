"""Real out-of-memory errors, of a CPU whose memory TensorFlow limits."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forks import ROOT, begin_forked, plain_environment

from kerasmemwatch.analysis.death_words import MAX_LINES
from kerasmemwatch.recording import load, runs
from kerasmemwatch.units import MIB

SCRIPTS = Path(__file__).parent / "scripts"
# The inputs of the failing batch, and the output of its first layer, which does not fit beside them.
INPUT_BYTES, OUTPUT_BYTES, LIMIT_MIB = 8192 * 512 * 4, 8192 * 2048 * 4, 60


CASES = [
    ("fit", "graph", 1),
    ("fit", "graph", 4),
    ("fit", "eager", 4),
    ("evaluate", "graph", 4),
    ("predict", "graph", 1),
    ("train_on_batch", "graph", 4),
    ("steps", "graph", 4),
    ("steps_caught", "graph", 4),
    ("step", "eager", 1),
    ("step_tape", "eager", 4),
]
XLA, RETRIED, ANEW, SHORT = ("fit", "xla", 4), ("retried", "graph", 1), ("anew", "graph", 1), ("short", "graph", 4)
METHODS = ["fit", "train_on_batch"]
NO_ONEDNN = {"TF_ENABLE_ONEDNN_OPTS": "0"}

Case = tuple[str, str, int]
Die = Callable[[Case], "tuple[Path, dict[str, Any]]"]
Ended = Callable[[], "tuple[int, str, str]"]


@pytest.fixture(scope="module")
def begun(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Any, tuple[Path, Ended]]]:
    """The processes of this module, which run side by side: TensorFlow waits ten seconds for memory to become free."""
    found: dict[Any, tuple[Path, Ended]] = {}
    chosen = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    cases = [case for case in CASES if dict(zip(("where", "mode", "fails_at"), case, strict=True)) in chosen]
    for case in (*cases, XLA, RETRIED, ANEW, SHORT):
        folder, limit_mib = tmp_path_factory.mktemp("died"), 120 if case in (RETRIED, ANEW) else LIMIT_MIB
        limits = {"TF_CPU_ALLOCATOR_USE_BFC": "1", "TF_CPU_BFC_MEM_LIMIT_IN_MB": str(limit_mib), **NO_ONEDNN}
        arguments = map(str, (folder, *case))
        ended = begin_forked(SCRIPTS / "out_of_memory.py", *arguments, environment=plain_environment(**limits))
        found[case] = folder, ended
    folder = tmp_path_factory.mktemp("readme")
    script, variables = str(ROOT / "docs" / "out_of_memory.py"), {**os.environ, **NO_ONEDNN}
    ended = begin_forked(SCRIPTS / "readme_note.py", script, environment=variables, folder=folder)
    found["readme"] = folder, ended
    for method in METHODS:
        folder = tmp_path_factory.mktemp("script")
        command = ["-m", "kerasmemwatch", "run", "--log-dir", str(folder), str(SCRIPTS / "plain_out_of_memory.py")]
        found[method] = folder, _begin([*command, method], {"TF_CPU_BFC_MEM_LIMIT_IN_MB": "100", **NO_ONEDNN})
    yield found
    for _, ended in found.values():
        ended()


def _begin(arguments: list[str], variables: dict[str, str]) -> Ended:
    environment = plain_environment(**variables)
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=pipe, stderr=pipe, text=True)

    @functools.cache
    def end() -> tuple[int, str, str]:
        out, errors = process.communicate()
        return process.returncode, out, errors

    return end


@pytest.fixture(scope="module")
def die(begun: dict[Any, tuple[Path, Ended]]) -> Die:
    """Wait for a case: its log directory, and what it printed."""

    def wait(case: Case) -> tuple[Path, dict[str, Any]]:
        folder, ended = begun[case]
        status, out, errors = ended()
        assert status == 0, errors
        return folder, json.loads(out.splitlines()[-1])

    return wait


@pytest.mark.parametrize(("where", "mode", "fails_at"), CASES)
def test_the_exception_has_a_note_and_the_step_a_record(die: Die, where: str, mode: str, fails_at: int) -> None:
    folder, found = die((where, mode, fails_at))
    note = said(found, folder, fails_at)
    kind = {"evaluate": "evaluation", "predict": "prediction"}.get(where, "training")
    assert note[0].startswith(f"kerasmemwatch: {kind} step {fails_at}")
    assert note[1].startswith(f"  Asked for: 64.0 MiB ({OUTPUT_BYTES:,} bytes) by layer wide in its forward pass")
    assert found["text"].startswith(f"Step {fails_at} ran out of memory: layer wide asked for 64.0 MiB")
    assert found["notes"] == [1, where == "steps_caught"]  # once, and where it was caught
    alive = next(line for line in note if "Alive then" in line)
    if fails_at == 1:
        inputs = ": inputs 16.0 MiB" in alive and "variables and inputs only; no step was traced yet" in alive
        assert inputs or (where == "step" and "variables only; no step was traced yet" in alive)
    else:
        assert "traced step 2, scaled from batch 8 to 8,192" in alive and "with a batch of 8,192" in note[0]
        [fits] = [line for line in note if "Likely to fit (estimate): batch_size=" in line]
        assert 64 < int(fits.partition("batch_size=")[2].split()[0].rstrip(":")) < 8192


def test_an_xla_program_is_told_with_its_exact_size(die: Die) -> None:
    folder, found = die(XLA)
    note = said(found, folder, 4)
    assert "with a batch of 8,192" in note[0]
    size = int(note[1].partition("(")[2].partition(" bytes")[0].replace(",", ""))
    # Both activations of the wide layer live at once, and little else.
    assert 2 * OUTPUT_BYTES < size < 2.2 * OUTPUT_BYTES and "by the step's XLA program" in note[1]
    assert any(line.startswith("  Largest layers: wide 1") for line in note)
    [planned] = [line for line in note if "XLA's plan" in line]
    assert "weights 4.0 MiB" in planned and "gradients 4.0 MiB" in planned


@pytest.mark.long
def test_each_try_has_a_line_and_the_last_says_what_fitted(die: Die) -> None:
    folder, found = die(RETRIED)
    assert found["ended"] == [False, False, True, True] and found["stored"] == 2
    deaths = load(folder).run.deaths
    assert [(death.step, death.batch) for death in deaths] == [(1, 8192), (2, 4096)]
    assert [death.followed for death in deaths] == [False, True] and deaths[1].fitted_batch == 64
    assert "Afterwards a batch of 64 fitted." in found["text"]
    assert "Before: Step 1 ran out of memory" in found["text"]


def test_tries_with_watches_of_their_own_are_told_by_the_one_that_fits(die: Die) -> None:
    folder, found = die(ANEW)
    first, second, third = (load(folder, run).run for run in runs(folder))
    assert [death.run for death in second.deaths] == [first.name, ""] and not second.deaths[1].followed
    assert [death.run for death in third.deaths] == [first.name, second.name] and third.deaths[1].fitted_batch == 64
    assert found["ended"] == [True, True]
    assert found["text"].startswith(
        "A batch of 64 fitted, after 2 tries that ran out of memory. Before: Step 1 of run "
    )
    assert found["text"].count("Before: Step 1 of run ") == 2 and "for a batch of 8,192" in found["text"]


def said(found: dict[str, Any], folder: Path, fails_at: int) -> list[str]:
    """The note, where the step's row is right, and record and page were on disk before the exception left."""
    assert found["raised"] == "ResourceExhaustedError" and found["plain"] == [True, False, False]
    assert found["ended"] == [True] * (fails_at - 1) + [False]
    assert found["limit"] == LIMIT_MIB * MIB and found["faults"] == []
    assert INPUT_BYTES < found["peaks"][-1] <= found["limit"]
    assert found["stored"] == found["page"] == 1
    assert load(folder).samples["ended"].tolist() == found["ended"]
    note: list[str] = found["note"]
    assert len(note) <= MAX_LINES and note[-1].endswith("run/out-of-memory.html")
    assert "an exception left it" not in found["text"]  # it is told of already
    return note


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_a_script_that_is_run_dies_with_the_note(begun: Any, method: str) -> None:
    folder, ended = begun[method]
    status, _, errors = ended()
    assert status == 1
    said = errors.splitlines()
    at = next(number for number, line in enumerate(said) if line.startswith("kerasmemwatch: training step 1"))
    # Behind the error's own text, as Python prints notes.
    assert any("ResourceExhaustedError" in line for line in said[:at])
    assert re.search(r"Asked for: 64\.0 MiB \(67,108,864 bytes\) by layer (wide|head)", said[at + 1])
    [death] = load(folder).run.deaths
    assert death.batch == 8192 and death.limit_bytes == 100 * MIB


def test_the_note_is_whole_where_the_host_is_short_of_memory_too(die: Die) -> None:
    _, found = die(SHORT)
    assert found["stored"] == 1 and found["plain"] == [True, False, False]
    assert "by layer wide in its forward pass" in found["note"][1]
    assert any("traced step 2, scaled from batch 8 to 8,192" in line for line in found["note"])
    # The page takes more than there is, which is said; the recording has everything.
    assert found["page"] == 0 and "There is no page about it." in found["faults"][0]
    assert found["note"][-1].endswith("/run")


def test_readme_shows_such_a_note(begun: Any) -> None:
    status, out, errors = begun["readme"][1]()
    assert status == 0, errors

    def labels(text: str) -> list[str]:
        return re.findall(r"^  ([A-Z][^:(]*?)(?: \(|:)", text, re.MULTILINE)

    shown = (ROOT / "README.md").read_text().partition("python\ndocs/out_of_memory.py")[2].split("```")[1]
    assert labels(out) == labels(shown) and len(labels(out)) == MAX_LINES - 1
    first = "kerasmemwatch: training step 6, epoch 1 ran out of memory on CPU:0, with a batch of 64."
    assert first in shown and first in out
