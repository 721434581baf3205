"""Models of whole numbers: what their products work in, and what they keep, has the layer that multiplies."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import pytest

from kerasmemwatch.attribution.variables.variable_size import variable_size
from kerasmemwatch.records.categories import CATEGORIES
from kerasmemwatch.watch.memory_watch import MemoryWatch

pytestmark = pytest.mark.usefixtures("exact_counting")

layers = keras.layers
BATCH, STEPS, TRACED, WIDTH = 16, 4, 3, 256


@pytest.mark.parametrize("shape", [(WIDTH,), (6, WIDTH)], ids=str)
@pytest.mark.parametrize("name", ["Dense", "EinsumDense"])
def test_the_scratch_memory_of_a_product_is_its_layers(name: str, shape: tuple[int, ...]) -> None:
    def layer() -> Any:
        equation = "ab,bc->ac" if len(shape) == 1 else "asb,bc->asc"
        if name == "Dense":
            return layers.Dense(2 * WIDTH, name="it")
        return layers.EinsumDense(equation, (*shape[:-1], 2 * WIDTH), name="it")

    model = keras.Sequential([keras.Input(shape), layer(), layers.Dense(1, name="head")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an input layer has nothing to quantize
        model.quantize("int8")
    model.compile(jit_compile=False)
    watch = MemoryWatch(None, trace=[TRACED], strict=True)
    x = np.ones((BATCH * STEPS, *shape), np.float32)
    model.predict(x, batch_size=BATCH, verbose=0, callbacks=[watch])
    timeline = watch.recording.steps[0].timeline
    made = timeline.birth >= 0
    nobodys = made & (timeline.category == CATEGORIES.index("unattributed"))
    assert timeline.requested_bytes[nobodys].sum() <= 0.01 * timeline.requested_bytes[made].sum()
    # The kernel once more, as the numbers that the processor multiplies.
    [found] = [layer for layer in watch.report.layers if layer.path == "it"]
    assert found.temporaries_bytes >= 4 * WIDTH * 2 * WIDTH


def dense(*shape: int) -> list[Any]:
    return [keras.Input(shape), layers.Dense(2 * WIDTH, name="it")]


def einsum(*shape: int) -> list[Any]:
    equation = "ab,bc->ac" if len(shape) == 1 else "asb,bc->asc"
    return [keras.Input(shape), layers.EinsumDense(equation, (*shape[:-1], 2 * WIDTH), name="it")]


MODELS = {
    "Dense": lambda: dense(WIDTH),
    "Dense of sequences": lambda: dense(6, WIDTH),
    "EinsumDense": lambda: einsum(WIDTH),
    "EinsumDense of sequences": lambda: einsum(6, WIDTH),
    "Embedding": lambda: [keras.Input((6,), dtype="int32"), layers.Embedding(4096, 64, name="it")],
}


@pytest.mark.parametrize("is_trained", [False, True], ids=["predict", "LoRA"])
@pytest.mark.parametrize("name", MODELS)
def test_everything_has_an_owner(name: str, is_trained: bool) -> None:
    model = keras.Sequential([*MODELS[name](), layers.Dense(1, name="head")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an input layer has nothing to quantize
        model.quantize("int8")
    it = model.get_layer("it")
    if is_trained:
        it.enable_lora(4)
    model.compile("adam", "mse", jit_compile=False)
    watch = MemoryWatch(None, trace=[TRACED], strict=True)
    x = np.ones((BATCH * STEPS, *model.input_shape[1:]), np.float32)
    if is_trained:
        y = np.ones((BATCH * STEPS, *model.output_shape[1:]), np.float32)
        model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[watch])
    else:
        model.predict(x, batch_size=BATCH, verbose=0, callbacks=[watch])
    [row] = [layer for layer in watch.report.layers if layer.path == "it"]
    assert row.weights_bytes == sum(variable_size(variable).bytes or 0 for variable in it.variables)
    timeline = watch.recording.steps[0].timeline
    made = timeline.birth >= 0
    nobodys = made & (timeline.category == CATEGORIES.index("unattributed"))
    assert timeline.requested_bytes[nobodys].sum() <= 0.01 * timeline.requested_bytes[made].sum()
    # Scratch memory is told by the operation that works in it.
    names = {timeline.ops[op] for op in timeline.op[made & (timeline.owner == timeline.owners.index("it"))]}
    assert "" not in names
