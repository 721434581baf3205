"""Growth to explain, with what is known of it before anything is looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kerasmemwatch.leaks.causes.case import Rises
from kerasmemwatch.leaks.evidence.collector import Moment
from kerasmemwatch.leaks.evidence.makings import Made
from kerasmemwatch.records.growth import Growth

__all__ = ["Suspicion"]


@dataclass(frozen=True)
class Suspicion:
    """Growth to explain.

    Attributes:
        growth: The suspicious verdicts, the one to explain first.
        rises: What rose meanwhile.
        step: The newest row's step.
        after: How far the rows go, in words: ``"step 1,200"``.
        made: What TensorFlow made meanwhile that no Python object holds.
        moment: An earlier moment if this may be the last chance: what is new since then is told by its age.
        models: The models of the calls that grow, those that live, oldest first; ``None`` if they are not known.
        are_devices_steady: Whether every device counts each allocation, and is steady: tensors don't grow.
    """

    growth: tuple[Growth, ...]
    rises: Rises
    step: int
    after: str
    made: Made
    moment: Moment | None = None
    models: Callable[[], Sequence[Any]] | None = None
    are_devices_steady: bool = False
