"""Models nested as deeply as Keras can run them, with and without a watch; and a layer that calls itself for ever."""

import json
import sys

import keras
import numpy as np

import kerasmemwatch as kmw

LEAST, MOST = 80, 110
X = np.ones((12, 4), "float32")


def nested(depth, innermost=None):
    inputs = keras.Input((4,))
    outputs = (innermost or keras.layers.Dense(4))(inputs) if depth == 0 else nested(depth - 1, innermost)(inputs)
    return keras.Model(inputs, outputs)


def fits(model, eager, watch):
    model.compile("sgd", "mse", run_eagerly=eager)
    try:
        model.fit(X, X, batch_size=4, verbose=0, callbacks=[watch] if watch else [])
    except RecursionError:
        return False
    return True


def new_watch():
    return kmw.MemoryWatch(None, trace=[1, 2, 3], strict=True)


def deepest(eager):
    """The deepest model that runs without a watch, by bisection."""
    models, runs = [nested(LEAST)], LEAST
    try:
        for _ in range(LEAST, MOST):
            inputs = keras.Input((4,))
            models.append(keras.Model(inputs, models[-1](inputs)))
    except RecursionError:
        pass  # too deep even to be made
    fails = LEAST + len(models)
    while fails - runs > 1:
        depth = (runs + fails) // 2
        if fits(models[depth - LEAST], eager, None):
            runs = depth
        else:
            fails = depth
    return runs, models[runs - LEAST]


class Endless(keras.layers.Layer):
    def call(self, inputs):
        return self(inputs) if self.armed else inputs


found = {"limit": sys.getrecursionlimit()}
for mode in ("graph", "eager"):
    depth, model = deepest(mode == "eager")
    watch = new_watch()
    found[mode] = {
        "depth": depth,
        "fits": fits(model, mode == "eager", watch),
        "traced": len(watch.recording.steps),
        "limit": sys.getrecursionlimit(),
    }
endless = Endless()
endless.armed = False
model = nested(1, endless)
endless.armed = True
found["endless"] = {"fits": fits(model, True, new_watch()), "limit": sys.getrecursionlimit()}
print(json.dumps(found))
