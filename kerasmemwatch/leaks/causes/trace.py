"""The way to an object as LeakCanary shows it: each link with a verdict, and one reference to change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from kerasmemwatch.leaks.evidence.chains import Chain, Step
from kerasmemwatch.records.growth import TraceLink

__all__ = ["OUTSIDE", "trace_of"]

OUTSIDE = TraceLink("held outside Python", "suspect", "no Python object that the collector tracks refers to it")
_CONTAINERS = ("list", "dict", "tuple", "set", "frozenset", "deque", "defaultdict", "OrderedDict")


def trace_of(chain: Chain | None, last: str = "", reason: str = "", count: int = 1) -> tuple[TraceLink, ...]:
    """Make a trace of a chain.

    Args:
        last: What the last object holds many of, if that is the leak; by default the last object is it.
        reason: Why what leaks is said to be stuck.
        count: How many are held alike.
    """
    if chain is None or chain.is_cut:
        return ()
    alike = f" x{count:,}" if count > 1 else ""
    if chain.root is None:
        target = last or (chain.steps[-1].class_name if chain.steps else "object")
        return OUTSIDE, TraceLink(f"{target}{alike}", "stuck", reason)
    if chain.root.kind == "callback" and len(chain.steps) > 1:
        chain = replace(chain, steps=chain.steps[1:])  # the root's words say what it is
    links = [TraceLink(_root_words(chain), "expected", _root_reason(chain)), *_links(chain.steps)]
    if last:
        links.append(TraceLink(f"[...] {last}{alike}", "stuck", reason))
    else:
        links[-1] = TraceLink(links[-1].words + alike, "stuck", reason)
    suspect = _suspect(chain.steps, is_held=bool(last))
    link = links[suspect + 1]
    links[suspect + 1] = TraceLink(link.words, "suspect", link.reason or "nothing removes what it holds")
    return tuple(links)


def _root_words(chain: Chain) -> str:
    root = chain.root
    assert root is not None
    file = f" of {os.path.basename(root.file)}" if root.file else ""
    if root.kind == "generator" and root.name == root.scope:
        return f"generator {root.scope}(){file}"
    return {
        "global": f"global {root.name}{file or f' of module {root.scope}'}",
        "local": f"local variable {root.name} of {root.scope}(), which is running{file and ','}{file}",
        "callback": f"callback {root.name}{file}, of the call that is running",
        "generator": f"local variable {root.name} of generator {root.scope}(){file and ','}{file}",
        "class": f"class attribute {root.name}{file or f' of module {root.scope}'}",
        "registry": root.name,
    }[root.kind]


def _root_reason(chain: Chain) -> str:
    assert chain.root is not None
    return "it lives as long as the process" if chain.root.kind in ("global", "class", "registry") else ""


def _links(steps: tuple[Step, ...]) -> Iterator[TraceLink]:
    for step in steps:
        size = f" of {step.size:,}" if step.size is not None and step.class_name in _CONTAINERS else ""
        access = f"{step.access} " if step.access else ""
        yield TraceLink(f"{access}{step.class_name}{size}", "unknown", _known(step))


def _known(step: Step) -> str:
    if step.class_name == "History":
        return "a History keeps the model of its fit"
    if ".callbacks." in step.module:
        return "a callback keeps the model it was given"
    if ".optimizers." in step.module:
        return "an optimizer keeps slots for every variable"
    if step.class_name == "FuncGraph":
        return "a graph keeps what its functions captured"
    if step.class_name == "GradientTape":
        return "a tape keeps every value that a gradient needs"
    return ""


def _suspect(steps: tuple[Step, ...], *, is_held: bool) -> int:
    """The step that should not hold the next one; -1 for the root's own value."""
    if is_held:
        return len(steps) - 1
    before = steps[:-1]
    for number in range(len(before) - 1, -1, -1):
        if ".callbacks." in before[number].module:
            return number
    for number in range(len(before) - 1, -1, -1):
        if before[number].class_name in _CONTAINERS:
            return number
    return len(before) - 1
