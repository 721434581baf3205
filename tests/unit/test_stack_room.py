"""Room for deep calls changes nothing of what is called."""

from __future__ import annotations

import resource
import subprocess
import sys
import traceback

import pytest

from kerasmemwatch.attribution.hooks.stack_room import with_room


def test_it_calls_with_all_arguments() -> None:
    assert with_room(lambda *args, **kwargs: (args, kwargs), [1, 2], {"three": 3}) == ((1, 2), {"three": 3})


def test_calls_may_go_deep_and_nest() -> None:
    def depth(left: int) -> int:
        return left and 1 + (with_room(depth, (left - 1,), {}) if left % 50 == 0 else depth(left - 1))

    assert with_room(depth, (300,), {}) == 300


def most_faults(deepest: int, times: int) -> int:
    """Pages that so many calls of one function touch for the first time, at the depth where they are most."""

    def leaf() -> None:
        pass

    def calls() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(times):
            leaf()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def at(depth: int) -> int:
        return calls() if not depth else at(depth - 1)

    return max(at(depth) for depth in range(deepest))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="whether a later Python maps memory for a call is not known")
def test_no_depth_makes_each_call_map_memory() -> None:
    # In a process of its own: what runs the tests may have a large chunk already.
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True)
    without, within = map(int, done.stdout.split())
    assert without > 50 > within


def test_it_is_in_no_traceback() -> None:
    def fails() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        with_room(fails, (), {})
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names == ["test_it_is_in_no_traceback", "fails"]


if __name__ == "__main__":
    print(most_faults(300, 100), with_room(most_faults, (300, 100), {}))
