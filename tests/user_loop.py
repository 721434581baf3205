"""A loop of the user's own to put a session around."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from kerasmemwatch.watch.memory_session import MemorySession

MODES = ("eager", "graph", "xla")
WEIGHTS_BYTES = (16 * 32 + 32 + 32 * 4 + 4) * 4


class Loop:
    """A model, its optimizer, a batch, and the step of a loop as people write it."""

    def __init__(self, build: Any, mode: str = "graph", name: str = "mlp", *, is_built: bool = True) -> None:
        self.case = build(name)
        self.model, self.optimizer = self.case.model, keras.optimizers.Adam()
        if is_built and self.model.built:
            self.optimizer.build(self.model.trainable_variables)  # else TensorFlow makes the step's graph twice
        self.x, self.y = tf.constant(self.case.x[:8]), tf.constant(self.case.y[:8])
        self.data = self.case.dataset
        function = {
            "eager": lambda step: step,
            "graph": tf.function,
            "xla": lambda step: tf.function(step, jit_compile=True),
        }[mode]
        self.train, self.test = function(self._train), function(self._test)

    def _train(self, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.model(x, training=True) - y))
        gradients = tape.gradient(loss, self.model.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        return loss

    def _test(self, x: Any, y: Any) -> Any:
        return tf.reduce_mean(tf.square(self.model(x, training=False) - y))


def column(session: MemorySession, name: str) -> list[Any]:
    return session.recording.samples[name].tolist()
