"""Names in user code that hold objects: globals of modules, and locals of the functions that run in any thread."""

from __future__ import annotations

import dis
import functools
import gc
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

from kerasmemwatch.compat.keras import GLOBAL_STATE
from kerasmemwatch.compat.tensorflow import PY_FUNCTIONS, REGISTERED_GRADIENTS
from kerasmemwatch.leaks.evidence.reads import attributes_of, file_of, items_of

__all__ = [
    "Root",
    "globals_of_libraries",
    "is_library_file",
    "is_python_file",
    "is_user_file",
    "local_of",
    "module_of_dict",
    "registries",
    "untracked_locals",
    "user_roots",
]

_OPTIMIZED = 0x1  # inspect.CO_OPTIMIZED: the locals are not the frame's own dict
_PYTHON = os.path.realpath(sysconfig.get_path("stdlib")) + os.sep
_PACKAGES = frozenset(("site-packages", "dist-packages"))
_LIBRARIES = tuple(
    {os.path.realpath(path) + os.sep for name in ("purelib", "platlib", "stdlib") if (path := sysconfig.get_path(name))}
)
_OWN = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
_FROZEN_LOCALS = sys.version_info >= (3, 13)


@dataclass(frozen=True)
class Root:
    """A name that holds an object.

    Attributes:
        kind: ``"global"``, ``"local"``, ``"class"`` (an attribute of one), ``"generator"``, ``"registry"``, or
            ``"callback"`` of a call of Keras' that is running.
        name: The variable; a callback's class; ``Class.attribute``.
        scope: The module, or the function that is running.
        file: Path of its source; ``""`` if unknown.
        line: First line of the function; 0 for a module.
    """

    kind: str
    name: str
    scope: str
    file: str
    line: int = 0


@functools.lru_cache(4096)
def is_user_file(path: str) -> bool:
    """Whether a source file is the user's: no library's, and not of this package."""
    if not path or (path.startswith("<") and not path.startswith("<ipython")):
        return False
    if path.startswith(_LIBRARIES):
        return False
    real = os.path.realpath(path)
    return not real.startswith(_LIBRARIES) and not real.startswith(_OWN)


def is_library_file(path: str) -> bool:
    """Whether a source file is a library's; code without a file, such as a doctest's, is told to be nobody's."""
    return bool(path) and not path.startswith("<") and not is_user_file(path)


def is_python_file(path: str) -> bool:
    """Whether a source file is of Python's standard library."""
    real = os.path.realpath(path)
    # An environment sees the packages of the Python that it was made from in that one's folder.
    return real.startswith(_PYTHON) and _PACKAGES.isdisjoint(real.removeprefix(_PYTHON).split(os.sep))


def user_roots(frame: FrameType | None) -> dict[int, Root]:
    """Names of users' modules and of the running users' functions, by the id of what they hold.

    No frame and no value is kept.

    Args:
        frame: Innermost frame of this thread's stack to read; those of others are read as a whole.
    """
    found: dict[int, Root] = {}
    for name, module in sys.modules.copy().items():
        file = file_of(module)
        if is_user_file(file) or (name == "__main__" and not file):
            for variable, value in _named(attributes_of(module) or {}):
                found.setdefault(id(value), Root("global", variable, name, file))
    for file, names in _other_globals(frame):
        for variable, value in names:
            found.setdefault(id(value), Root("global", variable, "<code>", file))
    for callback in _running_callbacks(frame):
        kind = type(callback)
        file = file_of(sys.modules.get(kind.__module__))
        if is_library_file(file):  # such as Keras' LambdaCallback
            file = next((each for each in _files_of_functions(callback) if is_user_file(each)), file)
        if not is_library_file(file):
            found.setdefault(id(callback), Root("callback", kind.__name__, kind.__module__, file))
    for code, name, value in _locals(frame):
        if not name.startswith((".", "__")):
            found[id(value)] = Root("local", name, code.co_name, code.co_filename, code.co_firstlineno)
    return found


def _other_globals(frame: FrameType | None) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Globals of running code that belongs to no module, such as a doctest's or what ``exec`` was given."""
    seen = set[int]()
    while frame is not None:
        names, file = frame.f_globals, frame.f_code.co_filename
        if id(names) not in seen and _is_loose(names):
            seen.add(id(names))
            yield file, _named(names)
        frame = frame.f_back


def _named(names: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in items_of(names) if type(name) is str and not name.startswith("__")]


def _is_loose(names: dict[str, Any]) -> bool:
    module = sys.modules.get(str(names.get("__name__")))
    return module is None or attributes_of(module) is not names


def globals_of_libraries() -> list[dict[str, Any]]:
    """Globals of libraries' modules: a quarter of all references, which no program piles up."""
    every = filter(None, map(attributes_of, sys.modules.copy().values()))
    return [names for names in every if is_library_file(str(names.get("__file__") or ""))]


def untracked_locals(frame: FrameType | None) -> list[Any]:
    """Dicts in local variables of the running users' functions that Python's collector does not know."""
    return [value for _, _, value in _locals(frame) if type(value) is dict and not gc.is_tracked(value)]


def _locals(frame: FrameType | None) -> Iterator[tuple[CodeType, str, Any]]:
    """Local values of the users' functions that are running, in other threads, too."""
    own = threading.get_ident()
    for stack in (frame, *(other for thread, other in sys._current_frames().items() if thread != own)):
        yield from _locals_of(stack)


def _locals_of(frame: FrameType | None) -> Iterator[tuple[CodeType, str, Any]]:
    while frame is not None:
        code = frame.f_code
        if code.co_flags & _OPTIMIZED and is_user_file(code.co_filename) and not _has_taken_locals(code):
            values = frame.f_locals
            found = list(values.items())
            _forget(values)
            del values
            while found:
                yield code, *found.pop()
        frame = frame.f_back


def local_of(frame: FrameType | None, value: Any) -> str:
    """The local variable of a function that waits, such as a generator, which is a value; ``""`` if unknown."""
    if frame is None or _has_taken_locals(frame.f_code):
        return ""
    values = frame.f_locals
    found = next((name for name, each in values.items() if each is value), "")
    _forget(values)
    return found


def _has_taken_locals(code: CodeType) -> bool:
    """Whether a function may hold the dict that ``locals()`` gave it: before Python 3.13 to read them changes it."""
    if _FROZEN_LOCALS or "locals" not in code.co_names:
        return False
    # As a method it is pytest's, whose asserts call it and keep nothing.
    return any(each.opname == "LOAD_GLOBAL" and each.argval == "locals" for each in dis.get_instructions(code))


def _forget(values: dict[str, Any]) -> None:
    # Before Python 3.13 the frame keeps this copy, and would keep alive what the function deletes later. Somebody else,
    # such as a debugger, may have the copy, too.
    if not _FROZEN_LOCALS and sys.getrefcount(values) <= 4:
        values.clear()


def _files_of_functions(value: Any) -> list[str]:
    """The files of the functions and methods among an object's own attributes."""
    held = (each.__func__ if type(each) is MethodType else each for each in (attributes_of(value) or {}).values())
    return [each.__code__.co_filename for each in held if type(each) is FunctionType]


def _running_callbacks(frame: FrameType | None) -> Iterator[Any]:
    """Callbacks of the running fit: a user may have no other name for one that was made in the call."""
    while frame is not None:
        code = frame.f_code
        if code.co_varnames[:1] == ("self",) and code.co_filename.endswith("callback_list.py"):
            values = frame.f_locals
            held = values["self"]
            _forget(values)
            yield from list(getattr(held, "callbacks", None) or ())
            return
        frame = frame.f_back


def module_of_dict(value: Any) -> tuple[str, str] | None:
    """Name and file of the module whose globals a dict is; ``None`` if it is no module's."""
    name = value.get("__name__") if type(value) is dict else None
    if not isinstance(name, str):
        return None
    module = sys.modules.get(name)
    if module is None or attributes_of(module) is not value:
        return None
    return name, file_of(module)


def registries() -> dict[int, str]:
    """Ids of registries of TensorFlow and Keras that may keep objects."""
    found: dict[int, str] = {}
    for name, words in (
        (REGISTERED_GRADIENTS, "TensorFlow's registry of gradients"),
        (PY_FUNCTIONS, "TensorFlow's registry of Python functions"),
        (GLOBAL_STATE, "Keras' global state"),
    ):
        value = name.if_loaded()
        if value is not None:
            found[id(value)] = words
    return found
