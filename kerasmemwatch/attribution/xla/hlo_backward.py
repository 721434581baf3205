"""Start of the backward pass in the schedule of a compiled program. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import and_, or_

from kerasmemwatch.attribution.xla.hlo_op_names import Named, in_gradient_tape
from kerasmemwatch.attribution.xla.hlo_program import HloProgram

__all__ = ["backward_from"]


def backward_from(program: HloProgram, names: Sequence[Named]) -> int | None:
    """Return the first position of the backward pass, ``None`` if there is none.

    Earlier positions may have backward names, too. Buffers that gradients are added to, and a weight's transpose,
    depend on constants or on one parameter, so they may be made at any time. An activation's derivative needs no
    incoming gradient, and may be made as soon as its layer has run. All gradients come from the loss: the backward pass
    begins at the first position that depends on the last forward value that all gradients depend on.

    Args:
        names: The operation of each position, and its source.
    """
    backward, forward = set[int](), 0
    for position, (name, how) in enumerate(names):
        if in_gradient_tape(name):
            if any(program.origins.get(value, 0) is None for value in program.writes[position]):
                backward.add(position)
        elif how in ("own", "fusion"):
            forward |= 1 << position
    named = [position for position in sorted(backward) if names[position][1] in ("own", "fusion")]
    made_of = _made_of(program, forward)
    # Gradients that depend on no data are left out, as where the loss is a sum.
    common = reduce(and_, filter(None, (made_of[position] for position in _final(program, backward))), -1)
    last = common.bit_length() - 1 if common > 0 else None
    return next((position for position in named if last is None or made_of[position] >> last & 1), None)


def _made_of(program: HloProgram, wanted: int) -> list[int]:
    """By position, the wanted positions that it depends on, including itself, as a set of bits."""
    of_value: dict[int, int] = {}
    found = []
    for position, (read, written) in enumerate(zip(program.reads, program.writes, strict=True)):
        sources = wanted & 1 << position
        for value in (value for group in read for value in group):
            sources |= of_value.get(value, 0)
        found.append(sources)
        # A loop's variable is written before the loop, and again within it.
        of_value.update((value, of_value.get(value, 0) | sources) for value in written)
    return found


def _final(program: HloProgram, backward: set[int]) -> list[int]:
    """Return the backward positions that no later backward position depends on: the final gradients."""
    of_bits = _made_of(program, reduce(or_, (1 << position for position in backward), 0))
    read = 0
    for position in backward:
        read |= of_bits[position] & ~(1 << position)
    return [position for position in sorted(backward) if not read >> position & 1]
