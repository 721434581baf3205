"""Traced steps by device: which devices there are, and steps as seen by one of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kerasmemwatch.errors import InvalidArgumentError
from kerasmemwatch.records.timeline import TracedStep

__all__ = ["device_names", "headed", "on_device", "steps_on"]


def device_names(steps: Iterable[TracedStep]) -> tuple[str, ...]:
    """The devices on which the steps allocated anything; those that head a step come first."""
    steps = list(steps)
    heads = [step.timeline.device for step in steps]
    return tuple(dict.fromkeys([*heads, *(name for step in steps for name in step.timelines)]))


def on_device(step: TracedStep, device: str | None) -> TracedStep:
    """The step with the given device's timeline as ``timeline``; unchanged if ``device`` is ``None``.

    Raises:
        InvalidArgumentError: If the step has no timeline of the device.
    """
    if device is None or device == step.timeline.device:
        return step
    chosen = step.timelines.get(device)
    if chosen is None:
        raise _unknown(device, step.timelines)
    before = replace(step.timeline, gradient_bytes=step.gradient_bytes)
    rest = tuple(each for each in step.others if each is not chosen)
    head = replace(chosen, gradient_bytes={})
    return replace(step, timeline=head, gradient_bytes=chosen.gradient_bytes, others=(before, *rest))


def headed(steps: Iterable[TracedStep], device: str | None) -> tuple[TracedStep, ...]:
    """The steps, each headed by the device if it has a timeline of it, else unchanged."""
    return tuple(on_device(step, device) if device in step.timelines else step for step in steps)


def steps_on(steps: Iterable[TracedStep], device: str) -> tuple[TracedStep, ...]:
    """The steps that allocated on a device, headed by that device. Raises ``InvalidArgumentError`` if none did."""
    steps = tuple(steps)
    found = tuple(on_device(step, device) for step in steps if device in step.timelines)
    if not found:
        raise _unknown(device, device_names(steps))
    return found


def _unknown(device: object, known: Iterable[str]) -> InvalidArgumentError:
    names = ", ".join(map(repr, known))
    expected = f"one of {names}" if names else "that of a traced step, of which there is none"
    return InvalidArgumentError(f"Expected device to be {expected}. Received: device={device!r}.")
