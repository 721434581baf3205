"""Models of whole numbers: what their products work in has the layer that multiplies."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import pytest

from kerasmemwatch.callbacks import MemoryWatch
from kerasmemwatch.timeline import CATEGORIES

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
