"""One step of a model that holds 2,000 built layers and calls one of them."""

import json
import sys

import keras
import numpy as np

import kerasmemwatch as kmw

NUM_LAYERS = 2_000


class Many(keras.Model):
    def __init__(self):
        super().__init__()
        self.many = [
            keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", trainable=not index)
            for index in range(NUM_LAYERS)
        ]

    def build(self, input_shape):
        for layer in self.many:
            layer.build(input_shape)

    def call(self, inputs):
        return self.many[0](inputs)


model = Many()
model.compile("sgd", "mse")
model.build((4, 2))  # within fit that takes Keras ten times as long
watch = kmw.MemoryWatch(log_dir=sys.argv[1], run_name="run")
model.fit(np.ones((8, 2)), np.ones((8, 1)), batch_size=4, verbose=0, callbacks=[watch])
recording = watch.recording
print(
    json.dumps(
        {
            "steps": recording.samples["step"].tolist(),
            "layers": len(recording.layers),
            "paths": len({layer.path for layer in recording.layers}),
            "weights": recording.report.weights_bytes,
            "brief": str(recording.report),
            "all": recording.report.text(everything=True).count("\n"),
        }
    )
)
