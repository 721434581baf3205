"""The fits, evaluates and predicts of this process, whichever watch recorded them, with what each left in memory."""

from __future__ import annotations

import math
import operator
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kerasmemwatch.attribution.variables.variable_size import components, variable_size
from kerasmemwatch.leaks.evidence.collector import in_use_bytes, rss_bytes
from kerasmemwatch.leaks.verdicts.calls import Call
from kerasmemwatch.probes.counters import CounterProbe
from kerasmemwatch.records.run import DeviceInfo
from kerasmemwatch.sampling.recorder import Recorder
from kerasmemwatch.watch.search.own_rss import own_rss_bytes

__all__ = ["ProcessCalls"]

_MAX_CALLS = 400
# Peaks of like calls differ by so much.
_JITTER = 1.01


@dataclass(frozen=True)
class _Begun:
    """A call under way.

    Attributes:
        thread: The thread that began it.
        stage: Its stage.
        step: The recorder's step at that time.
        model: How many models had been run, its own included.
        variable_bytes: Its model's variables, by device.
        in_use_bytes: Bytes in use on each device.
    """

    thread: int
    stage: str
    step: int
    model: int
    variable_bytes: dict[str, int]
    in_use_bytes: dict[str, int]


@dataclass
class _Model:
    signature: str = ""
    sizes: list[tuple[str, int]] = field(default_factory=list)  # device and bytes of each variable


class ProcessCalls:
    """A bounded series of the calls of this process.

    Reading costs some 20 us a call, and for a model that is new to it some microseconds a variable.

    Attributes:
        calls: Those that another one followed, oldest first.
        ended: How many ended.
        is_larger: Whether the newest one that ended is larger than any before.
    """

    def __init__(self) -> None:
        self.calls: deque[Call] = deque(maxlen=_MAX_CALLS)
        self.ended = 0
        self._last: Call | None = None  # without what it left
        self._begun: _Begun | None = None
        self._devices: tuple[DeviceInfo, ...] = ()
        # By id: a model of the user's need not have a hash.
        self._models: dict[int, tuple[weakref.ref[Any], _Model]] = {}
        self._num_models = self._step = 0
        self._largest = [0.0, 0.0, 0.0]
        self._counters = CounterProbe()

    @property
    def is_larger(self) -> bool:
        """Whether the newest one that ended is larger than any before."""
        return self._last is not None and self._last.is_larger

    def begin(self, stage: str, model: Any, recorder: Recorder) -> None:
        """Called as a call begins: reads what the one before left."""
        known = self._known(model)
        held: dict[str, int] = {}
        for device, size in known.sizes:
            held[device] = held.get(device, 0) + size
        in_use = in_use_bytes([device.name for device in self._devices])
        last, self._last = self._last, None
        if last is not None:
            self._counters.open()
            rss = rss_bytes()
            left = tuple(self._left(device, in_use, known) for device in self._devices)
            rss_left = math.nan if rss is None else float(rss - own_rss_bytes())
            counters = tuple(self._counters.batch_end())
            self.calls.append(replace(last, device_bytes=left, rss_bytes=rss_left, counters=counters))
        self._begun = _Begun(threading.get_ident(), stage, recorder.step, self._num_models, held, in_use)

    def end(self, recorder: Recorder) -> bool:
        """Called as a call ends; whether it is one that began here."""
        begun, self._begun = self._begun, None
        if begun is None or begun.thread != threading.get_ident() or not recorder.started:
            return False
        devices = recorder.run.devices
        if devices != self._devices and [one.name for one in devices] != [one.name for one in self._devices]:
            self.calls.clear()
        self._devices = devices
        self.ended += 1
        steps = max(1, recorder.step - begun.step)
        self._step += steps
        sizes = (float(steps), float(sum(begun.variable_bytes.values())), _peak(recorder, devices, begun))
        is_larger = any(map(operator.gt, sizes, (*self._largest[:2], _JITTER * self._largest[2])))
        self._largest = [max(pair) for pair in zip(sizes, self._largest, strict=True)]
        self._last = Call(self.ended, begun.stage, steps, self._step, begun.model, is_larger)
        return True

    def models(self) -> list[Any]:
        """The models of the calls that are still alive, oldest first."""
        references = [reference for reference, _ in list(self._models.values())]
        return [model for reference in references if (model := reference()) is not None]

    def _known(self, model: Any) -> _Model:
        key, models = id(model), self._models
        reference, known = models.get(key, (None, None))
        if known is None or reference is None or reference() is not model:
            known = _Model()
            if model is not None:
                self._num_models += 1
                models[key] = weakref.ref(model, lambda gone: _forget(models, key, gone)), known
        optimizer = getattr(model, "optimizer", None)
        signature = f"{id(optimizer)} {getattr(optimizer, 'built', None)} {getattr(model, 'built', None)}"
        if signature != known.signature:
            known.signature, known.sizes = signature, list(_sizes(model, optimizer))
        return known

    @staticmethod
    def _left(device: DeviceInfo, in_use: dict[str, int], known: _Model) -> float:
        """Bytes in use on a device without the variables of the model that is to run, as far as they are counted."""
        if device.name not in in_use:
            return math.nan
        own = sum(size for name, size in known.sizes if name == device.name and size >= device.counted_from_bytes)
        return float(in_use[device.name] - own)


def _forget(models: dict[int, tuple[weakref.ref[Any], _Model]], key: int, gone: weakref.ref[Any]) -> None:
    known = models.get(key)
    if known is not None and known[0] is gone:  # else its id is another model's by now
        del models[key]


def _sizes(model: Any, optimizer: Any) -> list[tuple[str, int]]:
    variables = [*getattr(model, "variables", ()), *(getattr(optimizer, "variables", None) or ())]
    found = []
    for variable in {id(each): each for each in variables}.values():
        size = variable_size(variable).bytes or 0
        for copy in components(variable):
            device = getattr(copy, "device", None)
            found.append((str(device).rpartition("device:")[2], size))
    return found


def _peak(recorder: Recorder, devices: Sequence[DeviceInfo], begun: _Begun) -> float:
    """By how much the newest rows' peaks exceed what was in use as the call began; 0 if unknown."""
    layout, rows = recorder.newest()
    start, most = 0, 0.0
    for column in layout:
        if column.name == "device_peak_bytes":
            for index, device in enumerate(devices[: column.size]):
                before = begun.in_use_bytes.get(device.name)
                peaks = [float(row[start + index]) for row in rows]
                known = [peak for peak in peaks if peak == peak]
                if before is not None and known:
                    most = max(most, max(known) - before)
        start += column.size
    return most
