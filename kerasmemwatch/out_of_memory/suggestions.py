"""Changes that may make a step fit, each with its estimated saving, the most likely first. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from kerasmemwatch.attribution.live.data_on_gpu import HOST_DATA
from kerasmemwatch.names import shortened
from kerasmemwatch.records.death import Death, Suggestion
from kerasmemwatch.records.layer_memory import LayerMemory
from kerasmemwatch.units import format_bytes

__all__ = ["Needs", "suggest"]

# Bytes that the step needs for a number of rows.
Needs = Callable[[int], int]

# An estimate is no promise: this share of it is added before it is called a fit.
_MARGIN = 0.15
_ROUGH = " (a rough guess from the layers' outputs)"
_MOST = 4
_REMAT_LAYERS = 3
_LONGEST_NAME = 40


def suggest(
    death: Death, needs: Needs | None, *, is_rough: bool = False, is_mixed: bool = False, data_bytes: int = 0
) -> tuple[Suggestion, ...]:
    """Rank changes by what they are estimated to save; a smaller batch comes first.

    Args:
        death: The death, with all layers that held something.
        needs: What the step needs by the rows of its batch; ``None`` if unknown.
        is_rough: Whether ``needs`` is a rough guess.
        is_mixed: Whether mixed precision is in use.
        data_bytes: Bytes of a whole data set on the device.
    """
    needed = None if needs is None or death.batch is None or is_rough else needs(death.batch)
    others = [
        *_off_device(data_bytes),
        *(() if is_mixed else _mixed(death.by_category)),
        *(_remat(death.layers) if death.stage == "train" else ()),
        *_other_mode(death.mode),
    ]
    ranked = sorted(others, key=lambda each: -(each.saves_bytes or 0))
    judged = [_judged(each, needed, death.limit_bytes) for each in ranked]
    smaller = _smaller_batch(death, needs)
    if is_rough:
        smaller = (replace(each, words=f"{each.words}{_ROUGH}", saves_bytes=None, fits=None) for each in smaller)
    # What is too little by itself comes last.
    return tuple(sorted((*smaller, *judged), key=lambda each: each.fits is False)[:_MOST])


def _smaller_batch(death: Death, needs: Needs | None) -> Iterator[Suggestion]:
    batch, limit = death.batch, _usable(death)
    if batch is not None and batch < 2:
        return
    if batch is None or needs is None or limit is None:
        code = "" if batch is None else f"batch_size={_power_below(batch)}"
        words = f"{code or 'half the batch'}{_accumulation(death, 2)} (whether that fits is unknown)"
        yield Suggestion(words, code)
        return
    if not _fits(needs(1), limit):
        limit = death.limit_bytes or limit  # what is left for the batch is too little to tell
    size = _power_below(batch)
    while size > 1 and not _fits(needs(size), limit):
        size //= 2
    peak = needs(size)
    words = f"batch_size={size}{_accumulation(death, -(-batch // size))}: the step then needs about"
    saves = max(0, needs(batch) - peak)
    yield Suggestion(f"{words} {format_bytes(peak)}", f"batch_size={size}", saves, _fits(peak, limit))


def _usable(death: Death) -> int | None:
    """The limit, or half of it where memory is in pieces: each region that the allocator adds is twice the last one.

    So it is on a CPU, where an XLA program's block has to fit into one; and wherever a request found no piece.
    """
    limit = death.limit_bytes
    in_one = death.request.kind == "program" and death.request.device.startswith("CPU")
    return limit if limit is None or not (death.is_fragmented or in_one) else limit // 2


def _accumulation(death: Death, steps: int) -> str:
    if death.stage != "train":
        return ""
    return f" with gradient_accumulation_steps={steps} in the optimizer, to keep the effective batch"


def _mixed(by_category: Mapping[str, int]) -> Iterator[Suggestion]:
    floats = sum(by_category.get(name, 0) for name in ("activations", "temporaries"))
    if floats:
        # Half of what the passes hold; the variables stay in float32.
        code = 'keras.mixed_precision.set_global_policy("mixed_bfloat16")'
        yield Suggestion("mixed precision, set before the model is built", code, floats // 2)


def _remat(layers: Sequence[LayerMemory]) -> Iterator[Suggestion]:
    holders = [each for each in layers if each.class_name and each.activations_bytes]
    held = sorted(holders, key=lambda each: -(each.activations_bytes or 0))[:_REMAT_LAYERS]
    if held:
        names = [each.path.rpartition("/")[2] for each in held]
        shown = ", ".join(shortened(name, _LONGEST_NAME) for name in names)
        code = f'with keras.RematScope(mode="list_of_layers", layer_names={names}): ...  # build the model'
        saves = sum(each.activations_bytes or 0 for each in held)
        yield Suggestion(f"keras.RematScope for {shown} (computed twice)", code, saves)


def _off_device(data_bytes: int) -> Iterator[Suggestion]:
    if data_bytes:
        yield Suggestion("the data set in host memory: a tf.data.Dataset made there", HOST_DATA, data_bytes)


def _other_mode(mode: str) -> Iterator[Suggestion]:
    if mode in ("graph", "eager"):
        yield Suggestion("compile(jit_compile=True): XLA reuses buffers", "jit_compile=True")
    elif mode == "xla":
        yield Suggestion("compile(jit_compile=False), which needs no single large block", "jit_compile=False")


def _judged(suggestion: Suggestion, needed: int | None, limit_bytes: int | None) -> Suggestion:
    if needed is None:  # what was alive is not known of this batch
        return replace(suggestion, saves_bytes=None)
    if suggestion.saves_bytes is None or limit_bytes is None:
        return suggestion
    return replace(suggestion, fits=_fits(needed - suggestion.saves_bytes, limit_bytes))


def _fits(peak: int, limit_bytes: int) -> bool:
    return peak * (1 + _MARGIN) <= limit_bytes


def _power_below(batch: int) -> int:
    """The largest power of two below a number of at least 2."""
    return 1 << ((batch - 1).bit_length() - 1)
