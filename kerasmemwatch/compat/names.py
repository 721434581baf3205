"""A private name of a library: looked up once, when first needed, and found or missing from then on.

The package's ``__init__`` loads this module, so it imports only what Python has loaded already.
"""

from __future__ import annotations

import sys

from kerasmemwatch.errors import MissingNameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import CodeType
    from typing import Any

__all__ = ["Attribute", "ClassName", "Local", "Name", "missing"]


class Name:
    """A name in a module, or in a class of one.

    Args:
        path: The name within it: ``"function"``, ``"Class._method"``.
        lost: What is lost without it, as a sentence for users.
    """

    def __init__(self, module: str, path: str, lost: str) -> None:
        self.module, self.path, self.lost = module, path, lost
        self.attribute = path.rpartition(".")[2]
        self._owner: Any = None
        self._reason = ""

    def __repr__(self) -> str:
        return f"{self.module}.{self.path}"

    def owner(self) -> Any:
        """The module or class that holds it. Raises ``MissingNameError`` if it is not there."""
        error = self.error()
        if error is not None:
            raise error
        return self._owner

    def get(self) -> Any:
        """Its current value, which other code may have replaced since the lookup.

        Raises:
            MissingNameError: If it is not there.
        """
        return getattr(self.owner(), self.attribute)

    def set(self, value: Any) -> None:
        """Set its value. Raises ``MissingNameError`` if it is not there."""
        setattr(self.owner(), self.attribute, value)

    def if_loaded(self) -> Any:
        """Its current value; ``None`` if its module is not loaded or lacks it."""
        return self.get() if self.module in sys.modules and self.exists else None

    @property
    def exists(self) -> bool:
        """Whether it is there."""
        return self.error() is None

    @property
    def is_missing(self) -> bool:
        """Whether it is known to be missing; checking imports nothing."""
        return bool(self._reason) or (self._owner is None and self.module in sys.modules and not self.exists)

    def error(self) -> MissingNameError | None:
        """Why it cannot be used; ``None`` if it can."""
        if self._owner is None and not self._reason:
            try:
                self._owner = find(self)
            except (ImportError, AttributeError):
                self._reason = f"not in {_release(self.module)}"
        return MissingNameError(repr(self), self._reason, self.lost) if self._reason else None

    def holder(self, module: Any) -> Any:
        """The module or class that contains the name. Raises ``AttributeError`` if it is not there."""
        found = _walk(module, self.path.split(".")[:-1])
        getattr(found, self.attribute)
        return found


class ClassName(Name):
    """A class identified by its name, so that comparing does not search its bases."""

    def holder(self, module: Any) -> Any:
        """As ``Name.holder``, if the class has exactly this name."""
        found = super().holder(module)
        if getattr(found, self.attribute).__name__ != self.attribute:
            raise AttributeError(self.attribute)
        return found

    def names(self, kind: type) -> bool:
        """Whether a class has the name."""
        return kind.__name__ == self.attribute and not self.is_missing

    def is_that_of(self, value: object) -> bool:
        """Whether a value's class has the name."""
        return self.names(type(value))


class Attribute(Name):
    """An attribute of a class's instances, set by its methods."""

    def of(self, value: Any, default: Any = None) -> Any:
        """An object's value; the default if the object lacks the attribute, for example one of another class."""
        return default if self.is_missing else getattr(value, self.attribute, default)

    def holder(self, module: Any) -> Any:
        """As ``Name.holder``, for a class with the attribute, or with a method that mentions it."""
        found = _walk(module, self.path.split(".")[:-1])
        if not hasattr(found, self.attribute) and not any(self.attribute in code.co_names for code in _codes(found)):
            raise AttributeError(self.attribute)
        return found


class Local(Name):
    """A local variable of a function, visible in its frames.

    Args:
        path: The function and the variable: ``"Class.method.variable"``.
    """

    def holder(self, module: Any) -> Any:
        """As ``Name.holder``, for the function."""
        found = _unwrapped(_walk(module, self.path.split(".")[:-1]))
        if self.attribute not in (*found.__code__.co_varnames, *found.__code__.co_cellvars):
            raise AttributeError(self.attribute)
        return found


def find(name: Name) -> Any:
    """Import a name's module and return what holds the name.

    Raises:
        ImportError: If there is no such module.
        AttributeError: If the module lacks the name.
    """
    from importlib import import_module

    return name.holder(import_module(name.module))


def missing(names: Iterable[Name]) -> list[MissingNameError]:
    """Errors for the names that cannot be used, among those of libraries already loaded."""
    loaded = (name for name in names if name.module.partition(".")[0] in sys.modules)
    return [error for error in (name.error() for name in loaded) if error is not None]


def _release(module: str) -> str:
    """A library and its installed version."""
    library = module.partition(".")[0]
    title = {"tensorflow": "TensorFlow", "keras": "Keras", "tensorboard": "TensorBoard"}.get(library, library)
    return f"{title} {getattr(sys.modules.get(library), '__version__', 'of this environment')}"


def _walk(value: Any, parts: Iterable[str]) -> Any:
    for part in parts:
        value = getattr(value, part)
    return value


def _unwrapped(function: Any) -> Any:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


def _codes(owner: type) -> Iterator[CodeType]:
    """The code of a class's methods and properties, and of the functions within them."""
    for base in owner.__mro__:
        for value in vars(base).values():
            method = getattr(value, "fget", None) or getattr(value, "__func__", value)
            waiting = [getattr(_unwrapped(method), "__code__", None)]
            while waiting:
                code = waiting.pop()
                if code is not None:
                    yield code
                    waiting.extend(each for each in code.co_consts if hasattr(each, "co_names"))
