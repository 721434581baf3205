"""Where functions that AutoGraph converted come from."""

from __future__ import annotations

import inspect
from typing import Any

import tensorflow as tf

from kerasmemwatch.compat.converted_code import origin_of


def test_a_line_of_a_converted_function_is_told_where_it_comes_from() -> None:
    inner: list[Any] = []

    def keep(function: Any) -> Any:
        inner.append(function)
        return function

    def step(value: Any) -> Any:
        keep(lambda: value)  # converted, too
        return value

    tf.function(step)(tf.constant(1))
    [made] = inner
    code = made.__code__
    assert code.co_filename != __file__
    lines, first = inspect.getsourcelines(step)
    assert origin_of(code.co_filename, code.co_firstlineno) == (__file__, first + 1)
    assert lines[1].endswith("# converted, too\n")


def test_other_lines_are_their_own() -> None:
    assert origin_of(__file__, 3) == (__file__, 3)
