"""JSON to frozen dataclasses, checking each value against its annotation: a file may hold anything of any size."""

from __future__ import annotations

import functools
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any, TypeVar

from kerasmemwatch.errors import RecordingFormatError

__all__ = ["MAX_JSON_BYTES", "checked", "dump_json", "field_types", "from_json", "parse_json"]

_T = TypeVar("_T")
# About ten thousand layers, or a step of a hundred thousand operations. A value may take 100 times its bytes in memory.
MAX_JSON_BYTES = 16 * 1024**2
_MAX_VALUES = 2**18
_INT64_BOUND = 2**63
# For values that nothing here inspects; Python copies and prints them recursively.
_MAX_DEPTH = 16


def dump_json(value: Mapping[str, Any], default: Callable[[Any], Any] | None = None) -> bytes:
    """Write a JSON object as ASCII bytes. Raises ``RecordingFormatError`` if it is too large for a reader to accept."""
    text = json.dumps(value, separators=(",", ":"), default=default).encode()
    _check_size(text)
    return text


def parse_json(text: bytes) -> dict[str, Any]:
    """Read a JSON object. Raises ``RecordingFormatError`` if it is not a JSON object, or too large."""
    _check_size(text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordingFormatError(f"Expected JSON. Received {len(text)} bytes: {error}.") from error
    if not isinstance(value, dict):
        raise RecordingFormatError(f"Expected a JSON object. Received: {type(value).__name__}.")
    return value


def from_json(cls: type[_T], raw: object, where: str = "") -> _T:
    """Make a dataclass from a JSON object. Unknown fields (of a later version) are ignored.

    Args:
        where: Its name in errors; by default its class's.

    Raises:
        RecordingFormatError: If a field is missing, or its value does not match the annotation.
    """
    if not isinstance(raw, dict):
        raise _wrong("an object", raw, where or cls.__name__)
    hints = field_types(typing.cast(Any, cls))
    try:
        return cls(**{name: checked(hint, raw[name], name) for name, hint in hints.items() if name in raw})
    except TypeError as error:  # a field without a default is missing
        raise RecordingFormatError(f"Expected every field of {where or cls.__name__}. Received: {error}.") from error


def checked(hint: Any, value: object, name: str) -> Any:
    """Check a JSON value against an annotation; arrays become tuples.

    Args:
        hint: ``str``, ``bool``, ``int``, ``float``, ``Any``, a dataclass; or ``tuple[X, ...]``, ``Mapping[str, X]``,
            ``X | None`` of those; a ``Literal`` of strings.
        name: Its name in errors. Names ending in ``_bytes``, ``count`` or ``index`` have no negative numbers.

    Raises:
        RecordingFormatError: If it does not match.
    """
    if hint in _PLAIN:
        return _PLAIN[hint](value, name)
    if is_dataclass(hint):
        return from_json(typing.cast(type, hint), value, name)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else checked(arguments[0], value, name)
    if origin is typing.Literal:
        if value not in arguments:
            raise _wrong(f"one of {', '.join(map(repr, arguments))}", value, name)
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong("an array", value, name)
        return tuple(checked(arguments[0], item, f"{name}[{index}]") for index, item in enumerate(value))
    if origin in (Mapping, dict):
        if not isinstance(value, dict):
            raise _wrong("an object", value, name)
        return {key: checked(arguments[1], item, f"{name}.{key}") for key, item in value.items()}
    raise TypeError(f"Expected the annotation of a value in JSON. Received: {hint!r} of {name}.")


def _check_size(text: bytes) -> None:
    if not text.isascii():  # one non-ASCII character can make the whole string take four times the memory
        raise RecordingFormatError("Expected JSON of ASCII characters. Received others.")
    values = text.count(b",") + text.count(b"[") + text.count(b"{")
    if len(text) > MAX_JSON_BYTES or values > _MAX_VALUES:
        raise RecordingFormatError(
            f"Expected JSON of at most {MAX_JSON_BYTES} bytes and {_MAX_VALUES} values. "
            f"Received: {len(text)} bytes, {values} values."
        )


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields; to work them out takes longer than to check a small value."""
    return typing.get_type_hints(cls)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise _wrong("a string", value, name)
    return value


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong("true or false", value, name)
    return value


def _whole(value: object, name: str) -> int:
    low = 0 if name.endswith(("_bytes", "count", "index")) else -_INT64_BOUND
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < _INT64_BOUND:
        raise _wrong("a whole number of at least 0" if low == 0 else "a whole number", value, name)
    return value


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) >= _INT64_BOUND:
        raise _wrong("a number", value, name)
    return value


def _anything(value: object, name: str, depth: int = 0) -> Any:
    if isinstance(value, (dict, list)):
        if depth == _MAX_DEPTH:
            raise _wrong(f"at most {_MAX_DEPTH} levels", value, name)
        for item in value.values() if isinstance(value, dict) else value:
            _anything(item, name, depth + 1)
    elif isinstance(value, int) and abs(value) >= _INT64_BOUND:
        raise _wrong("a whole number", value, name)
    return value


_PLAIN: dict[Any, Any] = {str: _text, bool: _flag, int: _whole, float: _number, Any: _anything}


def _wrong(expected: str, value: object, name: str) -> RecordingFormatError:
    if isinstance(value, int) and abs(value) >= _INT64_BOUND:
        shown = "a number beyond 64 bits"
    else:
        shown = repr(value) if isinstance(value, (str, bool, int, float, type(None))) else type(value).__name__
    return RecordingFormatError(
        f"Expected {expected}. Received: {name[:80]}={shown if len(shown) <= 80 else shown[:77] + '...'}."
    )
