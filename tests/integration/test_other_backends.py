"""On other backends than TensorFlow, host memory is recorded and the rest is unknown, honestly."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed; Keras' backend of NumPy needs it too"
)


def test_jax(run_python: Any) -> None:
    run_python(
        """
        import numpy as np
        import keras
        from kerasmemwatch import MemoryWatch, load

        class Asynchronous(keras.callbacks.CallbackList):
            def __init__(self, *arguments, **options):
                super().__init__(*arguments, **options)
                lists.append(self)

        lists = []
        assert keras.backend.backend() == "jax"
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        watch = MemoryWatch("logs", strict=True)
        x, y = np.ones((64, 4), "float32"), np.ones((64, 1), "float32")
        callbacks = Asynchronous([watch], add_history=True, model=model, epochs=2, steps=6, verbose=0)
        model.fit(x, y, batch_size=8, epochs=2, validation_split=0.25, verbose=0, callbacks=callbacks)
        assert lists[0]._async_train and lists[0]._async_test
        recording = load("logs")
        samples = recording.samples
        assert samples["step"].tolist() == list(range(1, 17)), samples["step"]
        assert samples["stage"].tolist() == (["train"] * 6 + ["test"] * 2) * 2
        assert (samples["host_rss_bytes"] > 0).all()
        assert "device_peak_bytes" not in samples or np.isnan(samples["device_peak_bytes"]).all()
        assert recording.run.devices == ()
        assert recording.report.peak.bytes is None
        assert any("Device memory is unknown" in note for note in recording.run.notes), recording.run.notes
        assert recording.report.weights_bytes == (4 * 3 + 3 + 3 + 1) * 4
        """,
        KERAS_BACKEND="jax",
    )


def test_without_a_device(run_python: Any) -> None:
    """Keras' backend of NumPy cannot train, but it predicts."""
    run_python(
        """
        import sys
        import numpy as np
        import keras
        from kerasmemwatch import MemoryWatch, load

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        watch = MemoryWatch("logs", strict=True)
        model.predict(np.ones((32, 4), "float32"), batch_size=8, verbose=0, callbacks=[watch])
        recording = load("logs")
        assert recording.samples["step"].tolist() == [1, 2, 3, 4]
        assert recording.samples["stage"].tolist() == ["predict"] * 4
        assert (recording.samples["host_rss_bytes"] > 0).all()
        assert recording.run.devices == ()
        assert any("Device memory is unknown" in note for note in recording.run.notes), recording.run.notes
        assert "unknown" in str(recording.report)
        assert recording.report.weights_bytes == 20
        """,
        KERAS_BACKEND="numpy",
    )
