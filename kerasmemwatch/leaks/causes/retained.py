"""Tensors, arrays or plain values that pile up in a container of the user's, or one that is made larger each time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kerasmemwatch.leaks.causes.case import Case, at
from kerasmemwatch.leaks.causes.trace import trace_of
from kerasmemwatch.leaks.evidence.chains import FINALIZER_FIX, LRU_CACHE, Chain
from kerasmemwatch.leaks.evidence.look import Contents, Look
from kerasmemwatch.leaks.evidence.roots import is_user_file
from kerasmemwatch.records.growth import LeakFinding, TraceLink
from kerasmemwatch.units import KIB, format_bytes

__all__ = ["pick_suspects", "retained"]

# A container's bytes may explain this share of the growth, or it is not named.
_LEAST_SHARE, _MOST_SHARE = 0.2, 3.0
_LEAST_BYTES, _FEWEST, _FEWEST_STEPS = KIB, 8, 20
# Epochs before those that show the growth, and the one that has just ended.
_LEAST_EPOCHS, _EPOCHS_BEFORE = 3, 3
# Batches that a dataset makes before a step takes them: PyDataset's queue has 10 by default, and prefetch has some.
_BATCHES_AHEAD = 16
_CAUSES = {"tensor": "retained_tensors", "array": "retained_arrays", "object": "python_objects"}


def pick_suspects(
    found: Mapping[int, Contents], before: Look | None, grown_bytes: float, rows: int, steps: int = 0
) -> Sequence[int]:
    """Ids of the containers that may explain growth: those that grew since the last look, or that have its size.

    Args:
        found: The containers now.
        before: The last look, if any.
        grown_bytes: By how much memory has grown, since the last look if there is one; NaN if unknown.
        rows: Over how many steps.
        steps: Steps since the run began: what each of them adds to has a length that this number divides.
    """
    if before is not None:
        grown = {
            key: each.num_bytes - _bytes_before(before, key, each)
            for key, each in found.items()
            if _is_held(each) or key in before.containers or _is_of_steps(each, steps)
        }
        least = max(_LEAST_BYTES, _LEAST_SHARE * grown_bytes) if grown_bytes > 0 else _LEAST_BYTES
        return sorted((key for key, size in grown.items() if size >= least), key=lambda key: -grown[key])
    chosen = []
    for key, each in found.items():
        is_like = not grown_bytes > 0 or _LEAST_SHARE <= each.num_bytes / grown_bytes <= _MOST_SHARE
        fewest = min(_FEWEST, rows) if each.container else max(_FEWEST, rows / 2)
        is_many = each.count >= fewest if each.length is None else _is_of_steps(each, steps)
        if each.num_bytes >= _LEAST_BYTES and is_like and is_many:
            chosen.append(key)
    return chosen


def _is_held(each: Contents) -> bool:
    return each.length is None and bool(each.container)


def _is_of_steps(each: Contents, steps: int) -> bool:
    """Whether so many steps may have made a single tensor or array as long as it is."""
    numbers = [number for number in (steps - 1, steps, steps + 1) if number >= _FEWEST_STEPS]
    return each.length is not None and any(each.length % number == 0 for number in numbers)


def _bytes_before(before: Look, key: int, now: Contents) -> int:
    old = before.containers.get(key)
    # An id may have been given to another container since.
    return old.num_bytes if old is not None and old.container == now.container else 0


@dataclass(frozen=True)
class _Gain:
    contents: Contents
    num_bytes: float
    count: float
    steps: float
    is_measured: bool  # between two looks


def retained(case: Case) -> Iterator[LeakFinding]:
    """Findings for the containers that were followed to a name."""
    if case.look is None:
        return
    for gain in sorted(_gains(case), key=lambda each: -each.num_bytes):
        # Strings are not in the allocator's memory.
        if case.are_devices_steady and gain.contents.kind == "tensor" and "string" not in gain.contents.like:
            continue
        per_step = gain.num_bytes / gain.steps if gain.steps else None
        rate = case.main.bytes_per_step
        share = None if per_step is None or not rate else per_step / rate
        if share is not None and share < _LEAST_SHARE:
            continue
        if gain.contents.is_by_size and not _explains(case, gain, share):
            continue
        if not (case.is_told or gain.is_measured or _is_one_each(case, gain)):
            continue
        if _is_nameless(gain.contents) and not (gain.is_measured or _is_like(share)):
            continue
        yield _finding(case, gain, per_step, share)


def _gains(case: Case) -> Iterator[_Gain]:
    newest, first = case.looks[-1], case.looks[0]
    for key, each in newest.containers.items():
        if each.chain is None or not _is_followed(each, each.chain):
            continue
        if each.chain.is_librarys and each.place is None:
            continue
        if not each.container and any((step.size or 0) >= each.count / 2 for step in each.chain.steps):
            continue  # they are in one that is no suspect, such as a deque that is full
        if len(case.looks) > 1 and (not each.is_by_size or key in first.containers):
            before = first.containers.get(key)
            gained = each.num_bytes - _bytes_before(first, key, each)
            count = each.count - (before.count if before is not None and before.container == each.container else 0)
            if gained > 0:
                yield _Gain(each, gained, count, newest.step - first.step, True)
        else:
            yield _Gain(each, each.num_bytes, each.count, newest.step, False)


def _is_followed(each: Contents, chain: Chain) -> bool:
    """Whether something is known of what holds a container, or the time was too short for that."""
    return chain.root is not None or bool(each.closes_over) or chain.is_cut


def _is_nameless(each: Contents) -> bool:
    return (each.chain is None or each.chain.root is None) and not each.closes_over


def _is_like(share: float | None) -> bool:
    """Whether what a container gained is as large as the growth."""
    return share is not None and 0.5 <= share <= 2.0


def _is_one_each(case: Case, gain: _Gain) -> bool:
    """Whether a container has one thing of each epoch or step so far: a constant may have the size of the growth."""
    count, epochs, rows = gain.count, case.rises_then.epochs, case.rises_then.rows
    is_of_epochs = _LEAST_EPOCHS <= epochs <= count <= epochs + _EPOCHS_BEFORE
    return gain.contents.kind != "object" and (is_of_epochs or rows <= count <= gain.steps + _BATCHES_AHEAD)


def _explains(case: Case, gain: _Gain, share: float | None) -> bool:
    """Whether the size explains the growth, which is all that one look has of it; plain values are on the host."""
    chain, place = gain.contents.chain, gain.contents.place
    is_users = chain is not None and chain.root is not None and is_user_file(chain.root.file)
    # TensorFlow may hold an object of the user's that holds it, as a function in a dataset.
    is_users |= place is not None and is_user_file(place.file)
    is_like = gain.is_measured or _is_like(share)
    is_there = gain.contents.kind == "tensor" or case.main.series.startswith("host")
    return is_users and is_like and is_there


def _finding(case: Case, gain: _Gain, per_step: float | None, share: float | None) -> LeakFinding:
    each = gain.contents
    name = _name(each)
    about = "about " if each.kind == "object" else ""
    size = f"{about}{format_bytes(each.num_bytes)}"
    who = f"{name} ({each.container})"
    if _is_nameless(each):
        who = f"A {each.container}, whose name was not found,"
    holds = f"{who} holds {each.count:,} {_things(each)}: {size}."
    if not each.container:
        holds = f"{each.count:,} {_things(each)} are alive: {size}, not in one container. {name} leads to one of them."
    if each.closes_over:
        holds = f"{each.count:,} functions {each.container} are alive, each with its own {name} ({each.like}): {size}."
    if each.length is not None:
        holds = f"{name} is one {each.kind}, {each.like}: {size}."
        holds += (
            f" It gained {format_bytes(gain.num_bytes)} in {gain.steps:,.0f} steps."
            if gain.is_measured
            else f" Its length fits {gain.steps:,.0f} steps that each add to it, and its size fits the growth."
        )
    elif gain.is_measured:
        holds += f" It gained {gain.count:,.0f} ({about}{format_bytes(gain.num_bytes)}) in {gain.steps:,.0f} steps."
    if each.most is not None:
        full = format_bytes(each.num_bytes / max(1, each.count) * each.most)
        holds += f" It may hold {each.most:,} (maxlen), which would take {about}{full}."
    if each.view_bytes > each.num_bytes / 2:
        holds += " Each is a view of part of a larger array, which is kept whole."
    is_sure = _is_like(share)
    confidence = (0.95 if is_sure else 0.7) if gain.is_measured else (0.5 if each.is_by_size or not is_sure else 0.8)
    return LeakFinding(
        cause=_CAUSES[each.kind],
        evidence=holds,
        bytes_per_step=per_step,
        since_step=case.main.since_step,
        confidence=confidence,
        where=at(each.place, "" if _is_nameless(each) else name),
        fix=_fix(each, name, case.regularly),
        **case.in_unit(per_step),
        known_issue=_issue(each),
        trace=_with_limit(each, _trace(each)),
    )


def _issue(each: Contents) -> str:
    if _is_registered(each):
        return "tensorflow #37653"
    return "tensorflow #34606" if each.kind == "tensor" and not each.closes_over else ""


def _is_registered(each: Contents) -> bool:
    """Whether TensorFlow's own list of Python functions holds those that hold it."""
    root = None if each.chain is None else each.chain.root
    return bool(each.closes_over) and root is not None and root.kind == "registry"


def _things(each: Contents) -> str:
    things = f"{each.kind}s ({each.like})"
    return f"{each.within} objects with {things}" if each.within else things


def _trace(each: Contents) -> tuple[TraceLink, ...]:
    if each.chain is None or each.chain.root is None:
        return ()  # it was not found what holds it
    if each.kind == "object":
        return trace_of(each.chain, each.like, "one of many", each.count)
    if not each.container:
        return trace_of(each.chain, reason=f"one of many ({each.like})", count=each.count)
    return trace_of(each.chain, "EagerTensor" if each.kind == "tensor" else "ndarray", each.like, each.count)


def _with_limit(each: Contents, trace: tuple[TraceLink, ...]) -> tuple[TraceLink, ...]:
    """A trace that does not say that nothing removes what a deque with ``maxlen`` holds."""
    if each.most is None:
        return trace
    reason = f"it keeps the newest {each.most:,}"
    return tuple(replace(link, reason=reason) if link.verdict == "suspect" else link for link in trace)


def _name(each: Contents) -> str:
    """The container as an expression of the user's."""
    if each.closes_over:
        return each.closes_over
    if each.chain is None or _is_nameless(each):
        return f"the {each.container}"
    steps = each.chain.steps
    if not each.container:  # not the one of them that it leads to
        unknown = next((number for number, step in enumerate(steps) if number and not step.access), len(steps) - 1)
        return replace(each.chain, steps=steps[:unknown]).expression
    is_listed = each.chain.root is not None and each.chain.root.kind == "registry"
    if is_listed and each.place is not None and steps[-1].access.startswith(".") and len(steps) > 1:
        return f"{steps[-2].class_name}{steps[-1].access}"  # TensorFlow's own names say less
    return each.chain.expression


def _fix(each: Contents, name: str, regularly: str) -> str:
    if each.chain is not None and each.chain.root is not None and each.chain.root.kind == "callback":
        name = f"self{name.removeprefix(each.chain.root.name)}"
    source = each.place.source if each.place else ""
    own = f"self{each.chain.steps[-1].access}" if each.chain is not None and each.chain.steps else ""
    if "._" in name and own in source:
        name = own  # which the user wrote: names of Keras' own say less
    if each.chain is not None and each.chain.is_finalizers:
        return FINALIZER_FIX
    if each.chain is not None and each.chain.is_default:
        return f"A default value is made once, with the function: use {name}=None, and make it in the function."
    if each.length is not None:
        return (
            f"Keep what you need of each part, or write the parts to a file; or reset {name} {regularly}. "
            "Concatenating in each step also copies the whole array."
        )
    if not each.container:
        return (
            f"Let go of what leads from {name} to them, such as an iterator of itertools.tee() that is not read on, or "
            "objects that refer to each other; or keep less of each."
        )
    if each.chain is not None and any(step.class_name == LRU_CACHE for step in each.chain.steps[-2:-1]):
        return f"Give the cache a limit, @lru_cache(maxsize=16), or empty it {regularly}: {name}.cache_clear()"
    if each.chain is not None and any(step.module == "queue" for step in each.chain.steps[-2:-1]):
        return "Give the queue a limit, Queue(maxsize=16): what fills it then waits for what empties it."
    empty = f"or empty {name} {regularly}" + ("" if _is_nameless(each) else f": {name}.clear()")
    if each.closes_over:
        fix = f"Make the function, and the dataset it is part of, once, before the loop: each keeps its {name}."
        kept = " TensorFlow keeps each Python function that becomes an operation (from_generator, numpy_function)."
        return fix + kept * _is_registered(each)
    if each.within.endswith(("Error", "Exception")):
        kept = "an exception's traceback keeps the local variables of every frame"
        return f"Keep str(error) in {name}: {kept}."
    if each.view_bytes > each.num_bytes / 2:
        return f"Keep a copy of the part that you need, array[...].copy(), or empty {name} {regularly}."
    if each.most is not None:
        return f"Give {name} a smaller maxlen, or keep less of each."
    if each.kind == "tensor" and each.scalars:
        return f"Keep a number instead of the tensor, float(value): {_example(source, 'float')}"
    if each.kind == "tensor":
        return f"Keep what you need of each, such as float(tf.reduce_mean(value)), {empty}"
    return f"Keep what you need of each, or write it to a file; {empty}"


def _example(source: str, function: str) -> str:
    """The user's own line with a call around what is appended, if it has that form."""
    head, call, rest = source.partition(".append(")
    if call and rest.endswith(")") and head.isidentifier() and ";" not in source:
        return f"{head}.append({function}({rest[:-1]}))"
    return f"values.append({function}(value))"
