"""Counts of what TensorFlow keeps for ever once it is made, though no Python object holds it.

These are lookup tables, and kernels of eager operations: one for each new name of a variable, and for each seed that an
operation draws. Hooks count them as they are made, and shapes of functions' arguments: of some calls, and of all where
memory is known to grow.
None of the hooked functions makes operations, so no stack that TensorFlow keeps has our functions in it.
"""

from __future__ import annotations

import functools
import itertools
import sys
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

from kerasmemwatch.attribution.hooks.patching import unseen
from kerasmemwatch.attribution.live.live_buffers import tensor_bytes
from kerasmemwatch.compat.names import Name
from kerasmemwatch.compat.tensorflow import (
    ANONYMOUS_NAME,
    CALL_FUNCTION,
    EAGER_PY_FUNCTION,
    EAGER_TENSOR,
    LOOKUP_TABLE,
    ONEDNN,
    OPERATION_SEED,
    TAPE_CACHE,
    VARIABLE_NAME,
)
from kerasmemwatch.leaks.evidence.places import Place
from kerasmemwatch.leaks.evidence.roots import is_user_file

__all__ = ["Made", "Makings"]

_MAX_NAMES, _MAX_SHAPES = 50_000, 20_000
_MAX_MARKS, _MAX_DEPTH = 64, 100
_NEWEST, _NEWEST_TAPES = 200, 20
# The place of each of so many is noted, then that of one in so many: a step may draw hundreds of seeds.
_ALL_PLACES, _ONE_IN = 500, 16
# Of so many calls the shapes of one are counted: a prime, as a step may call several functions in turn.
_SOME_CALLS = 7
# Arguments come before the variables that a function captures, of which there may be hundreds: 2 us each.
_FIRST_INPUTS = 6


@dataclass(frozen=True)
class Made:
    """How many of each were made so far, or between two moments.

    Attributes:
        tables: Lookup tables.
        names: Names of eager variables that no earlier one had.
        seeds: Seeds that eager operations drew under a global seed.
        py_functions: Eager Python functions that became operations.
        tapes: Tapes that TensorFlow's cache for such functions keeps.
        calls: Calls of traced functions whose shapes were counted.
        shapes: Those of them with shapes of arguments that no earlier one had.
        steps: Steps meanwhile.
        places: The user's line that made most of the newest, by the name of the field.
        tape_bytes: The results that one of the tapes keeps, besides its arguments; ``None`` if there is none.
        has_onednn: Whether oneDNN runs operations here, and no GPU does.
    """

    tables: int = 0
    names: int = 0
    seeds: int = 0
    py_functions: int = 0
    tapes: int = 0
    calls: int = 0
    shapes: int = 0
    steps: int = 0
    places: Mapping[str, Place] = field(default_factory=dict)
    tape_bytes: float | None = None
    has_onednn: bool = False

    def since(self, then: Made) -> Made:
        """What was made after an earlier moment."""
        return Made(
            self.tables - then.tables,
            self.names - then.names,
            self.seeds - then.seeds,
            self.py_functions - then.py_functions,
            self.tapes - then.tapes,
            self.calls - then.calls,
            self.shapes - then.shapes,
        )


class Makings:
    """Counts while it lives, until it is closed. All of a process share the hooks."""

    def __init__(self) -> None:
        self._marks: list[tuple[int, Made]] = []
        self._leave: weakref.finalize[[], Makings] | None = None

    def open(self) -> None:
        """Begin to count, unless it does; what was made since it was closed is unknown."""
        if self._leave is None:
            self._marks.clear()
            _hooks.enter()
            self._leave = weakref.finalize(self, _hooks.leave)
            self._leave.atexit = False

    def count_some_shapes(self) -> None:
        """Begin to count shapes of some calls of functions, if oneDNN runs them: 2 to 3 us a call on average."""
        if self._leave is not None and _has_onednn():
            _hooks.add(CALL_FUNCTION, _counting_shapes)

    def count_shapes(self) -> None:
        """Begin to count those of all, which takes 10 to 20 us a call."""
        if self._leave is not None:
            _hooks.one_in = 1
            _hooks.add(CALL_FUNCTION, _counting_shapes)

    def close(self) -> None:
        """Stop counting, and restore TensorFlow's functions if no other counts."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    def mark(self, step: int) -> None:
        """Note how much was made until a step."""
        if self._leave is None or (self._marks and self._marks[-1][0] >= step):
            return
        if len(self._marks) >= _MAX_MARKS:
            del self._marks[1::2]
        self._marks.append((step, _hooks.count()))

    def since(self, step: int) -> Made:
        """What was made after the newest mark that is not after a step, or else after the first mark."""
        if len(self._marks) < 2:
            return Made()
        early = [mark for mark in self._marks[:-1] if mark[0] <= step]
        begun, then = (early or self._marks)[-1 if early else 0]
        end, now = self._marks[-1]
        return replace(
            now.since(then),
            steps=end - begun,
            places=_hooks.places(then),
            tape_bytes=_tape_bytes(),
            has_onednn=_has_onednn(),
        )


def _tape_bytes() -> float | None:
    """What the newest entries of TensorFlow's cache of tapes hold each, on average."""
    cache = TAPE_CACHE.if_loaded()
    newest = list(itertools.islice(reversed(cache.values()), _NEWEST_TAPES)) if cache else []
    # Arguments are tensors anew, which may share the buffers of those that the user passes.
    results = [found if isinstance(found, (list, tuple)) else (found,) for _, _, found in newest]
    tensors = {id(each): each for found in results for each in found if EAGER_TENSOR.is_that_of(each)}
    return sum(map(tensor_bytes, tensors.values())) / len(newest) if newest else None


def _has_onednn() -> bool:
    is_on = ONEDNN.if_loaded()
    return is_on is not None and is_on() and not sys.modules["tensorflow"].config.list_logical_devices("GPU")


class _Hooks:
    def __init__(self) -> None:
        self.num_users = 0
        self.names: set[int] = set()
        self.shapes: set[int] = set()
        self.one_in = _SOME_CALLS
        self._counts: Counter[str] = Counter()
        self._newest: dict[str, deque[tuple[int, str, int]]] = {}
        self._restore: list[tuple[Name, Any, Any]] = []

    def count(self) -> Made:
        """What was made so far in this process, while any counted."""
        count, tapes = self._counts, len(TAPE_CACHE.if_loaded() or ())
        made = (count["tables"], count["names"], count["seeds"], count["py_functions"], tapes)
        return Made(*made, count["calls"], count["shapes"])

    def places(self, then: Made) -> dict[str, Place]:
        """The user's line that made most of each kind after a moment."""
        found = {}
        for kind, newest in self._newest.items():
            lines = Counter((file, line) for number, file, line in newest if number > getattr(then, kind))
            if lines:
                file, line = lines.most_common(1)[0][0]
                found[kind] = Place.read(file, line)
        return found

    def enter(self) -> None:
        self.num_users += 1
        if self._restore:
            return
        for name, hook in _HOOKS.items():
            self.add(name, hook)

    def add(self, name: Name, hook: Callable[[Any], Any]) -> None:
        """Hook a function, unless it is."""
        original = name.if_loaded()
        if original is None or any(each is name for each, _, _ in self._restore):
            return
        hooked = hook(original)
        name.set(hooked)
        self._restore.append((name, original, hooked))

    def leave(self) -> None:
        self.num_users -= 1
        if self.num_users:
            return
        for name, original, hooked in self._restore:
            if name.get() is hooked:  # else it stays below the patch of someone else
                name.set(original)
        self._restore.clear()
        self.names.clear()
        self.shapes.clear()
        self.one_in = _SOME_CALLS

    def count_call(self, frame: FrameType, *, is_new: bool) -> None:
        self._counts["calls"] += 1
        if is_new:
            self.note("shapes", frame)

    def note(self, kind: str, frame: FrameType | None) -> None:
        self._counts[kind] += 1
        number = self._counts[kind]
        if number > _ALL_PLACES and number % _ONE_IN:
            return
        for _ in range(_MAX_DEPTH):
            if frame is None:
                return
            file = frame.f_code.co_filename
            if is_user_file(file):
                self._newest.setdefault(kind, deque(maxlen=_NEWEST)).append((number, file, frame.f_lineno))
                return
            frame = frame.f_back


def _counting(kind: str, is_one: Callable[..., bool] = lambda *args, **kwargs: True) -> Callable[[Any], Any]:
    def hook(original: Any) -> Any:
        @functools.wraps(original)
        def hooked(*args: Any, **kwargs: Any) -> Any:
            if _hooks.num_users and is_one(*args, **kwargs):
                _hooks.note(kind, sys._getframe(1))
            with unseen:
                return original(*args, **kwargs)

        return hooked

    return hook


def _is_the_users(*args: Any, is_grad_func: bool = False, **kwargs: Any) -> bool:
    """Whether an eager Python function is no gradient of another."""
    return not (is_grad_func or any(args[3:4]))


def _counting_names(original: Any) -> Any:
    """Hook the function that names an eager variable's resource; its caller has the variable's own name."""
    code = None if VARIABLE_NAME.is_missing else VARIABLE_NAME.owner().__code__

    @functools.wraps(original)
    def hooked() -> Any:
        caller = sys._getframe(1)
        if _hooks.num_users and caller.f_code is code:
            key = hash(str(caller.f_locals.get(VARIABLE_NAME.attribute)))
            if key not in _hooks.names and len(_hooks.names) < _MAX_NAMES:
                _hooks.names.add(key)
                _hooks.note("names", caller)
        return original()

    return hooked


def _counting_shapes(original: Any) -> Any:
    number = itertools.count().__next__

    @functools.wraps(original)
    def hooked(context: Any, name: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if _hooks.num_users and not number() % _hooks.one_in and len(_hooks.shapes) < _MAX_SHAPES:
            first = inputs[:_FIRST_INPUTS]
            data = [each for each in first if EAGER_TENSOR.is_that_of(each) and each.dtype.is_numpy_compatible]
            key, function = hash((name, *(str(each.shape) for each in data))), hash(name)
            # A function that is called for the first time is new, not its shapes.
            _hooks.count_call(sys._getframe(1), is_new=key not in _hooks.shapes and function in _hooks.shapes)
            _hooks.shapes |= {key, function}
        with unseen:
            return original(context, name, inputs, *args, **kwargs)

    return hooked


_HOOKS: dict[Name, Callable[[Any], Any]] = {
    LOOKUP_TABLE: _counting("tables"),
    OPERATION_SEED: _counting("seeds"),
    EAGER_PY_FUNCTION: _counting("py_functions", _is_the_users),
    ANONYMOUS_NAME: _counting_names,
}
_hooks = _Hooks()
