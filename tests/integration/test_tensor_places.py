"""Where tensors and variables lie. A GPU's are asked for by DLPack, which tells of host memory likewise."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmemwatch.attribution.live import tensor_places
from kerasmemwatch.attribution.live.live_buffers import live_buffers, variable_addresses, variable_buffers
from kerasmemwatch.attribution.live.tensor_places import (
    Place,
    host_address,
    resource_place,
    tensor_place,
    variable_place,
)
from kerasmemwatch.attribution.variables.inventory import ledger
from kerasmemwatch.watch.memory_watch import MemoryWatch

NUMBERS = tf.reshape(tf.range(12), (3, 4))
GPU = "/job:localhost/replica:0/task:0/device:GPU:1"


def by_numpy(tensor: Any) -> int:
    return int(np.asarray(tensor).__array_interface__["data"][0])


def on_gpu(tensor: Any) -> Any:
    """A tensor that says it lies on a GPU."""
    return SimpleNamespace(backing_device=GPU, device=GPU, dtype=tensor.dtype, tensor=tensor)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have DLPack asked for what a tensor on a pretended GPU really is; the tensors that it was asked for."""
    found: list[Any] = []
    to_dlpack = tf.experimental.dlpack.to_dlpack

    def fake(tensor: Any) -> Any:
        found.append(tensor)
        return to_dlpack(getattr(tensor, "tensor", tensor))

    monkeypatch.setattr(tf.experimental.dlpack, "to_dlpack", fake)
    return found


@pytest.mark.parametrize("dtype", sorted(tensor_places._BY_DLPACK))
def test_dlpack_tells_the_address_that_numpy_tells(asked: list[Any], dtype: str) -> None:
    tensor = tf.cast(NUMBERS, dtype)
    assert tensor_place(on_gpu(tensor)) == ("GPU:1", by_numpy(tensor))
    assert len(asked) == 1
    assert tensor_place(tensor) == ("CPU:0", by_numpy(tensor))
    assert len(asked) == 1  # host memory needs no DLPack


def test_dlpack_is_not_asked_for_what_ends_the_process_or_raises(asked: list[Any]) -> None:
    tensors = [
        tf.constant(["text"]),
        tf.raw_ops.OptionalNone(),
        tf.Variable(1.0).handle,
        tf.cast(tf.ones(3), "float8_e5m2"),
        tf.quantization.quantize(tf.ones(3), 0.0, 1.0, tf.qint8).output,
    ]
    assert {tensor.dtype.name for tensor in tensors} == {"string", "variant", "resource", "float8_e5m2", "qint8"}
    assert {tensor_place(on_gpu(tensor)) for tensor in tensors} == {Place("GPU:1", 0)}
    assert asked == []


def test_nobody_waits_for_a_gpu_within_a_step(asked: list[Any]) -> None:
    tensor = on_gpu(tf.cast(NUMBERS, "float32"))
    assert tensor_place(tensor, in_step=True) == ("GPU:1", 0)
    assert host_address(tensor) == 0
    assert asked == []


def test_nobody_waits_for_an_executor_that_may_need_python(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.config.experimental, "get_synchronous_execution", lambda: False)
    assert tensor_place(on_gpu(tf.cast(NUMBERS, "float32"))) == ("GPU:1", 0)
    assert asked == []


def test_a_result_in_host_memory_of_a_gpus_operation_lies_in_host_memory() -> None:
    # As with shapes, and with int32 numbers.
    result = np.asarray(NUMBERS)
    kind = type("Tensor", (SimpleNamespace,), {"__array__": lambda self, *_, **__: result})
    tensor = kind(backing_device=GPU.replace("GPU:1", "CPU:0"), device=GPU, dtype=tf.int32)
    assert tensor_place(tensor) == ("CPU:0", by_numpy(result))
    assert host_address(tensor) == by_numpy(result)


def test_what_says_nothing_of_itself_has_no_address() -> None:
    assert tensor_place(object()) == variable_place(object()) == Place("CPU:0", 0)
    with tf.Graph().as_default():
        assert tensor_place(tf.constant(1.0)).address == 0


def test_asking_keeps_nothing(asked: list[Any]) -> None:
    page = os.sysconf("SC_PAGE_SIZE")

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * page

    before = tf.config.experimental.get_memory_info("CPU:0")["current"]
    tensor = tf.ones((1 << 20,))
    given = on_gpu(tensor)
    place = tensor_place(given)
    highest = resident()
    for _ in range(50_000):
        assert tensor_place(given) == place
        asked.clear()
    assert resident() - highest < 2 << 20
    del tensor, given
    assert tf.config.experimental.get_memory_info("CPU:0")["current"] <= before


def test_a_variable_that_is_copied_on_read_has_no_address_and_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = tf.Variable(tf.ones((64, 4)))
    assert variable_place(variable) == ("CPU:0", by_numpy(variable.value()))
    variable.scatter_add(tf.IndexedSlices(tf.ones((1, 4)), tf.constant([3])))
    assert variable_place(variable) == Place("CPU:0", 0)
    reads: list[Any] = []
    original = tf.raw_ops.ReadVariableOp
    monkeypatch.setattr(tf.raw_ops, "ReadVariableOp", lambda **args: reads.append(args) or original(**args))
    assert variable_place(variable) == Place("CPU:0", 0)
    assert reads == []
    assert variable_place(variable, compiled=True) == Place("CPU:0", 0)
    assert len(reads) == 2
    handle, key = variable.handle, id(variable.handle)
    assert tensor_places.is_scattered(handle)
    monkeypatch.undo()
    reads.clear()
    del variable, handle
    assert key not in tensor_places._scattered


def test_a_variable_without_a_value_has_no_address() -> None:
    handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[2], shared_name="never assigned")
    assert resource_place(handle, tf.float32) == Place("CPU:0", 0)


def test_variables_and_tensors_on_a_gpu_are_known_by_device_and_address(
    monkeypatch: pytest.MonkeyPatch, asked: list[Any]
) -> None:
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(1)])
    tensor = tf.ones((33, 5))
    account = ledger(model)
    on_host = {buffer.key: buffer.address for buffer in variable_buffers(account)}
    monkeypatch.setattr(tensor_places, "_device", lambda name: "GPU:1")
    found = variable_buffers(account)
    assert {buffer.device for buffer in found} == {"GPU:1"}
    assert {buffer.key: buffer.address for buffer in found} == on_host == variable_addresses(account)
    assert 0 not in on_host.values()
    assert len(asked) == 4 * len(on_host)
    held = [buffer for buffer in live_buffers() if buffer.address == by_numpy(tensor)]
    assert [(buffer.device, buffer.bytes) for buffer in held] == [("GPU:1", 33 * 5 * 4)]
    # Within a step.
    asked.clear()
    assert variable_addresses(account, in_step=True) == {}
    assert not any(buffer.address for buffer in live_buffers(in_step=True))
    assert asked == []


@pytest.mark.usefixtures("exact_counting")
def test_a_traced_step_has_the_peak_of_an_untraced_one_though_an_embedding_is_copied_on_read() -> None:
    model = keras.Sequential(
        [keras.Input((4,), dtype="int32"), keras.layers.Embedding(50_000, 16), keras.layers.Flatten()]
    )
    model.compile("sgd", "mse", jit_compile=False)
    watch = MemoryWatch(None, trace=[3], strict=True, verbose=0)
    x, y = np.ones((8, 4), "int32"), np.zeros((8, 64), "float32")
    data = tf.data.Dataset.from_tensors((x, y)).repeat(5)
    model.fit(data, shuffle=False, verbose=0, callbacks=[watch])
    assert watch.report.traced_steps == (3,)
    peaks = watch.report.samples["device_peak_bytes"][1:, 0]
    # A copy of the table is 3.2 MB; numbers of a few bytes come and go.
    assert np.ptp(peaks) < 50_000


def test_each_replica_of_a_variable_has_an_address(run_forked_python: Any) -> None:
    run_forked_python(
        """
        import keras, numpy as np, tensorflow as tf
        from kerasmemwatch.attribution.variables.inventory import ledger
        from kerasmemwatch.attribution.live.live_buffers import variable_buffers

        cpus = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(1)])
            model.compile("sgd", "mse")
        # Until it is trained, the replicas of a variable share its first value.
        model.fit(np.ones((4, 8)), np.ones((4, 1)), batch_size=4, verbose=0)
        parts = [part for variable in model.trainable_variables for part in variable.value.values]
        assert {part.device[-5:] for part in parts} == {"CPU:0", "CPU:1"}
        values = [part.value() for part in parts]
        places = [np.asarray(value).__array_interface__["data"][0] for value in values]
        found = [buffer for buffer in variable_buffers(ledger(model)) if buffer.trainable]
        assert sorted(buffer.address for buffer in found) == sorted(places), (found, places)
        assert len(set(places)) == len(parts) == 8
        assert {buffer.device for buffer in found} == {"CPU:0"}, found  # one memory, one allocator
        """
    )
