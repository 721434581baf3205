"""Where code that AutoGraph converted comes from: it runs from a file of its own, which is gone afterwards."""

from __future__ import annotations

from kerasmemwatch.compat.tensorflow import CONVERTED_CODE

__all__ = ["origin_of"]


def origin_of(file: str, line: int) -> tuple[str, int]:
    """The file and line that a line was converted from; the same ones if it was not.

    Args:
        file: Name of a source file.
        line: 1-based number of a line.
    """
    known = CONVERTED_CODE.if_loaded()
    nearest: tuple[int, str, int] | None = None
    for factories in list(known.values()) if known is not None else ():
        for factory in list(factories.values()):
            for location, origin in (getattr(factory, "source_map", None) or {}).items():
                is_nearer = nearest is None or nearest[0] < location.lineno
                if location.filename == file and location.lineno <= line and is_nearer:
                    nearest = location.lineno, str(origin.loc.filename), int(origin.loc.lineno)
    return (file, line) if nearest is None else nearest[1:]
