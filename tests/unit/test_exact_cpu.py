"""Which variables have TensorFlow count every allocation on a CPU, and whose they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import psutil
import pytest

from kerasmemwatch import exact_cpu
from kerasmemwatch.commands.run.launch import watched_environment
from kerasmemwatch.compat.tensorflow import CURRENT_CONTEXT, IS_INITIALIZED
from kerasmemwatch.environment import configuration
from kerasmemwatch.exact_cpu import ALLOCATOR_VARIABLE, LIMIT_VARIABLE, exact_variables, is_ours, remedy, turn_on

CONTEXT = "tensorflow.python.eager.context"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment without any of the variables, in a process without TensorFlow's context and TensorBoard."""
    for name in (CONTEXT, "tensorboard.default", "tensorboard.program"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = variables()
    for name in before:
        del os.environ[name]
    yield
    for name in variables():
        del os.environ[name]
    os.environ.update(before)


def variables() -> dict[str, str]:
    """The variables of this process that matter here."""
    return {name: value for name, value in os.environ.items() if name.startswith(("TF_CPU_", "KERASMEMWATCH"))}


def ours() -> dict[str, str]:
    return exact_variables({})


def test_it_is_set_with_the_machines_memory() -> None:
    turn_on()
    assert os.environ[ALLOCATOR_VARIABLE] == "1"
    whole = psutil.virtual_memory().total + psutil.swap_memory().total
    assert 0 <= int(os.environ[LIMIT_VARIABLE]) * 2**20 - whole < 2**21
    again = variables()
    turn_on()
    assert variables() == again


@pytest.mark.parametrize("value", ["0", "false", "FALSE", "", "nonsense"])
def test_an_allocator_that_the_user_chose_stays(value: str) -> None:
    os.environ[ALLOCATOR_VARIABLE] = value
    turn_on()
    assert variables() == {ALLOCATOR_VARIABLE: value}
    assert remedy() == f"Start Python with TF_CPU_ALLOCATOR_USE_BFC=1, or without that variable. It is {value!r}."


def test_a_user_who_turns_it_on_gets_no_limit_of_64_gib() -> None:
    os.environ[ALLOCATOR_VARIABLE] = "true"
    turn_on()
    assert os.environ[ALLOCATOR_VARIABLE] == "true" and not is_ours(ALLOCATOR_VARIABLE)
    assert is_ours(LIMIT_VARIABLE)


def test_a_limit_of_the_users_stays() -> None:
    os.environ[LIMIT_VARIABLE] = "100"
    turn_on()
    assert (os.environ[ALLOCATOR_VARIABLE], os.environ[LIMIT_VARIABLE]) == ("1", "100")
    assert is_ours(ALLOCATOR_VARIABLE) and not is_ours(LIMIT_VARIABLE)
    assert configuration()[LIMIT_VARIABLE] == "100"


def test_a_limit_of_ours_is_no_part_of_the_configuration() -> None:
    turn_on()
    assert LIMIT_VARIABLE not in configuration()
    assert configuration()[ALLOCATOR_VARIABLE] == "1"


OFF = [("KERASMEMWATCH_EXACT_CPU", "0"), ("KERASMEMWATCH_EXACT_CPU", " False "), ("KERASMEMWATCH_DISABLE", "1")]


@pytest.mark.parametrize(("name", "value"), OFF)
def test_it_is_turned_off(name: str, value: str) -> None:
    os.environ[name] = value
    turn_on()
    assert variables() == {name: value}


@pytest.mark.parametrize(("name", "value"), OFF)
def test_what_a_parent_process_set_is_turned_off(name: str, value: str) -> None:
    os.environ.update({**ours(), name: value})
    turn_on()
    assert variables() == {name: value}


@pytest.mark.parametrize("value", ["", "1", "yes"])
def test_it_is_not_turned_off(value: str) -> None:
    os.environ["KERASMEMWATCH_EXACT_CPU"] = value
    turn_on()
    assert os.environ[ALLOCATOR_VARIABLE] == "1"


def test_a_child_process_knows_what_is_its_parents() -> None:
    inherited = ours()
    assert is_ours(ALLOCATOR_VARIABLE, inherited) and is_ours(LIMIT_VARIABLE, inherited)
    assert exact_variables(inherited) == inherited
    # What the user gives the child is the user's.
    child = {**inherited, LIMIT_VARIABLE: "7"}
    assert not is_ours(LIMIT_VARIABLE, child)
    assert LIMIT_VARIABLE not in exact_variables(child)
    assert exact_variables({**inherited, ALLOCATOR_VARIABLE: "0"}) == {}


@pytest.mark.parametrize("name", ["tensorboard.default", "tensorboard.program"])
def test_tensorboards_process_is_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    turn_on()
    assert not variables()
    assert "Next to TensorBoard" in remedy()


@pytest.mark.parametrize(
    ("context", "is_late"),
    [
        (None, False),
        (SimpleNamespace(_initialized=False), False),
        (SimpleNamespace(_initialized=True), True),
        (SimpleNamespace(), True),
    ],
)
def test_where_the_context_exists_it_is_too_late(
    monkeypatch: pytest.MonkeyPatch, context: object, is_late: bool
) -> None:
    module = ModuleType(CONTEXT)
    module._context = context  # type: ignore[attr-defined]
    module.Context = type("Context", (), {"_initialized": None})  # type: ignore[attr-defined]
    for name in (CURRENT_CONTEXT, IS_INITIALIZED):
        monkeypatch.setattr(name, "_owner", None)
    monkeypatch.setitem(sys.modules, CONTEXT, module)
    turn_on()
    assert (not variables()) is is_late
    assert remedy().startswith("Import kerasmemwatch before the first model")


def test_the_remedy_names_what_turned_it_off() -> None:
    os.environ["KERASMEMWATCH_EXACT_CPU"] = "0"
    assert remedy() == "Start Python without KERASMEMWATCH_EXACT_CPU=0."


def test_a_system_that_does_not_tell_its_memory_gets_no_limit_to_speak_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    turn_on()
    assert int(os.environ[LIMIT_VARIABLE]) >= 2**20


def test_swap_counts_where_there_is_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_cpu, "_swap_bytes", lambda: 0)
    without = int(exact_variables({})[LIMIT_VARIABLE])
    monkeypatch.setattr(exact_cpu, "_swap_bytes", lambda: 5 * 2**30)
    assert int(exact_variables({})[LIMIT_VARIABLE]) == without + 5 * 1024


def test_run_does_the_same() -> None:
    made = watched_environment({"HOME": "/h"}, "logs")
    assert ours().items() <= made.items() and is_ours(LIMIT_VARIABLE, made)
    assert LIMIT_VARIABLE not in watched_environment({"KERASMEMWATCH_EXACT_CPU": "0"}, "logs")
    assert watched_environment({LIMIT_VARIABLE: "9"}, "logs")[LIMIT_VARIABLE] == "9"
