"""Changes that may make a step fit, each with its estimated saving, the most likely first. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from kerasmemwatch.out_of_memory.scaled_step import ScaledStep, scaled
from kerasmemwatch.records.death import Suggestion
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.units import format_bytes

__all__ = ["suggest"]

# An estimate is no promise: this share of it is added before it is called a fit.
_MARGIN = 0.15
_MOST = 4
_REMAT_LAYERS = 3


def suggest(
    traced: ScaledStep | None,
    limit_bytes: int | None,
    batch: int | None,
    by_category: Mapping[str, int],
    layers: Sequence[LayerMemory],
    mode: str,
    *,
    stage: str = "train",
    is_mixed: bool = False,
    data_on_device: int = 0,
) -> tuple[Suggestion, ...]:
    """Rank changes by what they are estimated to save.

    Args:
        traced: A traced step, scaled to the batch; ``None`` without one.
        limit_bytes: Most that the allocator may hand out.
        batch: Rows of the batch.
        by_category: What is alive at the moment of death.
        layers: The layers that hold most of it.
        mode: ``"graph"``, ``"eager"`` or ``"xla"``.
        stage: ``"train"``, ``"test"`` or ``"predict"``.
        is_mixed: Whether mixed precision is in use.
        data_on_device: Bytes of the data set on the device.
    """
    is_scaled = traced is not None and traced.batch is not None
    needed = traced.peak_bytes if traced is not None and is_scaled else None
    smaller = _smaller_batch(traced, limit_bytes, batch, stage)
    others = [
        *_on_device(data_on_device),
        *(_mixed(by_category) if not is_mixed else ()),
        *(_remat(layers) if stage == "train" else ()),
        *_other_mode(mode),
    ]
    ranked = sorted(others, key=lambda each: -(each.saves_bytes or 0))
    judged = [_judged(each, needed, limit_bytes) if is_scaled else replace(each, saves_bytes=None) for each in ranked]
    return (*smaller, *judged)[:_MOST]


def _smaller_batch(
    traced: ScaledStep | None, limit_bytes: int | None, batch: int | None, stage: str
) -> Iterator[Suggestion]:
    if batch is not None and batch < 2:
        return
    keep = ""
    if batch is None or traced is None or limit_bytes is None or traced.batch is None:
        if stage == "train":
            keep = " with gradient_accumulation_steps=2 in the optimizer, to keep the effective batch"
        code = "" if batch is None else f"batch_size={_power_below(batch)}"
        yield Suggestion(f"{code or 'half the batch'}{keep} (whether that fits is unknown)", code)
        return
    size = _power_below(batch)
    device, needed = traced.timeline.device, traced.peak_bytes
    while size > 1 and not _fits(scaled(traced.step, size, device).peak_bytes, limit_bytes):
        size //= 2
    peak = scaled(traced.step, size, device).peak_bytes
    fits = _fits(peak, limit_bytes)
    steps = -(-batch // size)
    if stage == "train":
        keep = f" with gradient_accumulation_steps={steps} in the optimizer, to keep the effective batch"
    tells = f"the step then needs about {format_bytes(peak)}"
    yield Suggestion(f"batch_size={size}{keep}: {tells}", f"batch_size={size}", max(0, needed - peak), fits)


def _mixed(by_category: Mapping[str, int]) -> Iterator[Suggestion]:
    floats = sum(by_category.get(name, 0) for name in ("activations", "temporaries"))
    if floats:
        # Half of what the passes hold; the variables stay in float32.
        code = 'keras.mixed_precision.set_global_policy("mixed_bfloat16")'
        yield Suggestion("mixed precision before the model is built", code, floats // 2)


def _remat(layers: Sequence[LayerMemory]) -> Iterator[Suggestion]:
    held = [each for each in layers if each.class_name and each.activations_bytes][:_REMAT_LAYERS]
    if held:
        names = ", ".join(each.path for each in held)
        saved = sum(each.activations_bytes or 0 for each in held)
        code = "with keras.RematScope(mode='list_of_layers', layer_names=[...]): build the model"
        yield Suggestion(f"keras.RematScope for {names} (computes them twice)", code, saved)


def _on_device(data_bytes: int) -> Iterator[Suggestion]:
    if data_bytes:
        code = "fit(tf.data.Dataset.from_generator(...)) or a keras.utils.PyDataset"
        yield Suggestion("keep the data set off the device: give fit batches, not whole arrays", code, data_bytes)


def _other_mode(mode: str) -> Iterator[Suggestion]:
    if mode in ("graph", "eager"):
        yield Suggestion("compile(jit_compile=True), which shares buffers", "jit_compile=True")
    elif mode == "xla":
        yield Suggestion("compile(jit_compile=False), which needs no single large block", "jit_compile=False")


def _judged(suggestion: Suggestion, needed: int | None, limit_bytes: int | None) -> Suggestion:
    if suggestion.saves_bytes is None or needed is None or limit_bytes is None:
        return suggestion
    fits = _fits(needed - suggestion.saves_bytes, limit_bytes)
    return replace(suggestion, fits=fits)


def _fits(peak: int, limit_bytes: int) -> bool:
    return peak * (1 + _MARGIN) <= limit_bytes


def _power_below(batch: int) -> int:
    """The largest power of two below a number of at least 2."""
    return 1 << ((batch - 1).bit_length() - 1)
