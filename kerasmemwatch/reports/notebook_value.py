"""Methods with which a notebook shows a value when it is the last line of a cell."""

from __future__ import annotations

from typing import Any

__all__ = ["NotebookValue", "extent"]


class NotebookValue:
    """Shown in a notebook as HTML; elsewhere as its text."""

    def _repr_html_(self) -> str:
        return self._repr_mimebundle_()["text/html"]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from kerasmemwatch.reports.html.notebook import mime_bundle

        return mime_bundle(self, include, exclude)


def extent(num_samples: int, num_steps: int) -> str:
    """The size of a recording, in words.

    Example:
        >>> extent(1200, 1)
        '1,200 samples, 1 traced step'
    """
    counts = ((num_samples, "sample"), (num_steps, "traced step"))
    return ", ".join(f"{count:,} {name}{'' if count == 1 else 's'}" for count, name in counts)
