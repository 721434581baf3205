"""A death for lack of memory in words, for the exception's note, the text, the tab and the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from kerasmemwatch.names import printable, shortened
from kerasmemwatch.records.death import Death
from kerasmemwatch.units import format_bytes

__all__ = ["MAX_LINES", "asked_beyond", "asker", "death_headline", "death_lines", "death_note"]

MAX_LINES = 8
_LONGEST = 60
_MOST_CATEGORIES = 6
_STAGES = {"train": "training", "test": "evaluation", "predict": "prediction"}
_FRAGMENTED = "but in no piece that is large enough: memory is fragmented."
_ASKED_IN = {"forward": "in its forward pass", "backward": "in its backward pass", "update": "in the update"}


def death_headline(death: Death) -> str:
    """A death in a line, with what fitted afterwards.

    Example:
        >>> death_headline(Death(7, "train", batch=64, followed=True, fitted_batch=32))
        'Step 7 ran out of memory: a batch of 64 did not fit. Afterwards a batch of 32 fitted.'
    """
    run = f" of run {_name(death.run)}" if death.run else ""
    words = f"Step {death.step:,}{run} ran out of memory: {_request(death) or _what_died(death)}."
    if death.followed:
        fitted = f"a batch of {death.fitted_batch:,}" if death.fitted_batch is not None else "another loop"
        words += f" Afterwards {fitted} fitted."
    return words


def death_lines(deaths: Sequence[Death]) -> tuple[str, ...]:
    r"""The newest death in full, then a line for each earlier try; empty without one.

    Example:
        >>> print(*death_lines([Death(7, "train", batch=64, followed=True, fitted_batch=32, run="a")]), sep="\n")
        A batch of 32 fitted, after a try that ran out of memory.
          Before: Step 7 of run a ran out of memory: a batch of 64 did not fit.
    """
    if not deaths:
        return ()
    if deaths[-1].run and deaths[-1].followed:
        # All were in other runs: this one has fitted.
        batch = deaths[-1].fitted_batch
        tries = f"{len(deaths)} tries" if len(deaths) > 1 else "a try"
        fitted = "This run" if batch is None else f"A batch of {batch:,}"
        before = [f"  Before: {death_headline(replace(death, followed=False))}" for death in reversed(deaths)]
        return (f"{fitted} fitted, after {tries} that ran out of memory.", *before)
    newest, earlier = deaths[-1], [f"  Before: {death_headline(death)}" for death in reversed(deaths[:-1])]
    details = [line for line in _lines(newest, "") if line][1:]
    return (death_headline(newest), *details, *earlier)


def asked_beyond(deaths: Sequence[Death], device: str | None) -> str:
    """Suffix for a device's share of its limit, which says little after an allocation has failed; ``""`` if none has.

    Example:
        >>> from kerasmemwatch.records.death import Request
        >>> asked_beyond([Death(7, "train", request=Request("op", 1024, device="GPU:0"))], "GPU:0")
        '; step 7 asked for 1.0 KiB more in vain'
    """
    for death in reversed(deaths):
        if not death.run and death.request.device == device and death.request.num_bytes is not None:
            return f"; step {death.step:,} asked for {format_bytes(death.request.num_bytes)} more in vain"
    return ""


def death_note(death: Death, where: str = "") -> str:
    """The note for the exception, of at most ``MAX_LINES`` lines.

    Args:
        death: The death.
        where: Place of the full report; ``""`` if there is none on disk.
    """
    lines = [line for line in _lines(death, where) if line]
    return "\n".join(printable(line) for line in lines[:MAX_LINES])


def asker(death: Death) -> str:
    """Who asked for the memory, as the subject of a sentence."""
    kind = death.request.kind
    if kind == "host":
        return "Python or numpy"
    if kind == "compile":
        return "XLA's compiler"
    if kind == "program":
        return "the step's XLA program"
    if death.layer:
        return f"{'layer' if death.class_name else 'the'} {_name(death.layer)}"
    return f"operation {_name(death.request.op)}" if death.request.op else "an operation"


def _what_died(death: Death) -> str:
    return f"a batch of {death.batch:,} did not fit" if death.batch is not None else "its batch did not fit"


def _request(death: Death) -> str:
    """Who asked for how much, ``""`` if the size is unknown."""
    request = death.request
    size = format_bytes(request.num_bytes) if request.num_bytes is not None else request.rounded
    if not size:
        return ""
    batch = f" for a batch of {death.batch:,}" if death.batch is not None else ""
    left = f", {format_bytes(death.missing_bytes)} more than was free" if death.missing_bytes else ""
    return f"{asker(death)} asked for {size}{batch}{left}"


def _lines(death: Death, where: str) -> Iterator[str]:
    epoch = "" if death.epoch is None else f", epoch {death.epoch + 1}"
    batch = "" if death.batch is None else f", with a batch of {death.batch:,}"
    device = f" on {death.request.device}" if death.request.device else ""
    step = f"{_STAGES.get(death.stage, death.stage)} step {death.step:,}{epoch}"
    yield f"kerasmemwatch: {step} ran out of memory{device}{batch}."
    yield f"  Asked for: {_what(death)}"
    yield _free(death)
    # What to do now comes before what explains it.
    yield from _helps(death)
    yield _alive(death)
    yield _holders(death)
    if where:
        yield f"  Full report: {where}"


def _what(death: Death) -> str:
    request = death.request
    size = format_bytes(request.num_bytes) if request.num_bytes is not None else request.rounded or "an unknown size"
    exact = f" ({request.num_bytes:,} bytes)" if request.num_bytes is not None else ""
    tensor = f", {request.dtype}{list(request.shape)}" if request.shape else ""
    pass_ = f" {_ASKED_IN[death.phase]}" if death.class_name and death.phase in _ASKED_IN else ""
    op = f", operation {_name(request.op)}" if request.op and request.kind == "op" and death.layer else ""
    is_planned = request.kind == "program" and death.mode == "xla" and request.num_bytes is not None
    most = f", most of it for layer {_name(death.layers[0].path)}" if is_planned and death.layers else ""
    return f"{size}{exact} by {asker(death)}{pass_}{op}{tensor}{most}."


def _free(death: Death) -> str:
    then = f"about {format_bytes(death.free_then_bytes)} were free when it asked (estimate)"
    if death.in_use_bytes is None:
        return f"  In use: {then}, {_FRAGMENTED}" if death.is_fragmented_then else ""
    limit = f" of {format_bytes(death.limit_bytes)}" if death.limit_bytes else ""
    whose = " of the host's memory" if death.request.kind == "host" else ""
    words = f"  In use: at most {format_bytes(death.in_use_bytes)}{limit}{whose} in this step (measured)"
    if death.is_fragmented:
        is_measured = (death.free_bytes or 0) >= (death.request.num_bytes or 0)
        return f"{words}; {f'{format_bytes(death.free_bytes)} were free' if is_measured else then}, {_FRAGMENTED}"
    if death.missing_bytes is not None:
        words += f"; {format_bytes(death.missing_bytes)} were missing"
    needs = f"; the whole step needs about {format_bytes(death.peak_bytes)} (estimate)" if death.peak_bytes else ""
    return f"{words}{needs}."


def _alive(death: Death) -> str:
    ranked = sorted(death.by_category.items(), key=lambda item: -item[1])
    found = ", ".join(f"{name} {format_bytes(size)}" for name, size in ranked[:_MOST_CATEGORIES])
    if not death.figures_from:
        return ""
    if death.request.kind == "program":
        return f"  Would be alive ({death.figures_from}): {found}."
    # Scaled figures count a batch that waits in the pipeline, which need not be there.
    is_more = death.in_use_bytes is not None and sum(death.by_category.values()) > death.in_use_bytes
    source = death.figures_from + (", at most" if is_more and death.peak_bytes else "")
    return f"  Alive then ({source}): {found or 'nothing is known'}."


def _holders(death: Death) -> str:
    found = ", ".join(f"{_name(row.path)} {format_bytes(row.total_bytes)}" for row in death.layers if row.total_bytes)
    return f"  Largest layers: {found}." if found else ""


def _helps(death: Death) -> Iterator[str]:
    """The change most likely to fit, then the others."""
    first, *rest = death.suggestions or (None,)
    if first is None:
        return
    likely = {True: "Likely to fit (estimate)", False: "Too little by itself (estimate)", None: "Try"}[first.fits]
    yield f"  {likely}: {first.words}."
    others = "; ".join(
        each.words + (f", saves about {format_bytes(each.saves_bytes)}" if each.saves_bytes else "") for each in rest
    )
    if others:
        yield f"  Or (estimates): {others}."


def _name(path: str) -> str:
    return shortened(path, _LONGEST)
