"""A session whose process forks, or is killed, within its loop; tells each step in a line, then what came of it.

Called with the log dir and ``fork``, ``run`` or ``raise``.
"""

import json
import os
import sys

import keras
import tensorflow as tf
from fault_kit import Messages

import kerasmemwatch as kmw

log_dir, how = sys.argv[1:]
messages = Messages()
original_call = keras.layers.Layer.__call__
model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, "tanh", name="hidden"), keras.layers.Dense(4)])
optimizer = keras.optimizers.SGD()
x, y = tf.ones((16, 64)), tf.ones((16, 4))
children = []


def train_step(x, y, number):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
        if how == "fork" and number == 3:
            # In the middle of a traced step; the child has none of TensorFlow's threads.
            children.append(os.fork())
            if not children[-1]:
                raise SystemExit
    optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)


try:
    with kmw.MemorySession(model, log_dir, run_name="run", trace=[2, 3, 4], strict=how != "fork") as session:
        for number in range(1, 100_000 if how == "run" else 11):
            with session.step((x, y)):
                train_step(x, y, number)
                if how == "raise" and number == 8:
                    raise RuntimeError("of the loop")
            if how == "run":
                print(number, flush=True)
            if number == 5:
                str(session.report)  # which has the traced steps analysed and written
except SystemExit:
    os._exit(7 if keras.layers.Layer.__call__ is original_call else 8)
told = {
    "samples": session.recording.samples["step"].tolist(),
    "steps": [step.step for step in session.recording.steps],
    "patched": keras.layers.Layer.__call__ is not original_call,
    "messages": messages.texts,
    "statuses": [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children],
}
print(json.dumps(told), flush=True)
