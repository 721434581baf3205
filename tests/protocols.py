"""Python 3.11's protocols as quick as 3.12's, for tests that ask TensorFlow much."""

from __future__ import annotations

import functools
import sys
import typing

__all__ = ["know_protocols"]


def know_protocols() -> None:
    """Have the attributes of each protocol collected once.

    TensorFlow asks of each argument whether it is of some protocols. Python 3.12 knows their attributes from their
    making on; before that they are collected anew each time, which is a fifth of the time of tests with TensorFlow.
    """
    if sys.version_info < (3, 12):
        typing._get_protocol_attrs = functools.cache(typing._get_protocol_attrs)  # type: ignore[attr-defined]
