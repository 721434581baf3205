"""What errors of TensorFlow, XLA and numpy tell of the allocation that failed. The texts are of real errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from kerasmemwatch.out_of_memory.error_text import could_be, read_error
from kerasmemwatch.records.death import Request

TEXTS = Path(__file__).parents[1] / "data" / "out_of_memory"


def real(name: str) -> Request | None:
    return read_error((TEXTS / f"{name}.txt").read_text())


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        (
            "cpu-graph",
            Request(
                "op",
                64 * 64 * 64 * 32 * 4,
                shape=(64, 64, 64, 32),
                dtype="float",
                op="gradient_tape/sequential_1/bn2_1/moments/BroadcastTo_1",
                device="CPU:0",
                allocator="bfc_cpu_allocator_for_gpu",
            ),
        ),
        (
            "cpu-eager",
            Request(
                "op",
                64 * 64 * 64 * 32 * 4,
                shape=(64, 64, 64, 32),
                dtype="float",
                op="Conv2D",
                device="CPU:0",
                allocator="bfc_cpu_allocator_for_gpu",
            ),
        ),
        ("cpu-xla", Request("program", None, "195.04MiB", op="StatefulPartitionedCall")),
        ("gpu-xla", Request("program", None, "512.12MiB", op="StatefulPartitionedCall")),
        (
            "gpu-two-roots",
            Request(
                "op",
                16 * 112 * 112 * 147 * 4,
                shape=(16, 112, 112, 147),
                dtype="float",
                op="resnet_v1_50/conv1/ExtractImagePatches",
                device="GPU:0",
                allocator="GPU_0_bfc",
            ),
        ),
        (
            "gpu-eager",
            Request(
                "op",
                128 * 768 * 4,
                shape=(128, 768),
                dtype="float",
                op="StridedSliceGrad",
                device="GPU:0",
                allocator="GPU_0_bfc",
            ),
        ),
    ],
)
def test_real_texts(name: str, request_: Request) -> None:
    assert real(name) == request_


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("Out of memory while trying to allocate 6291456 bytes.", Request("program", 6291456)),
        (
            "Out of memory while trying to allocate 1.50GiB.\n\t [[{{node a/b}}]]",
            Request("program", None, "1.50GiB", op="a/b"),
        ),
        (
            "Autotuning failed for HLO: %custom-call. Out of memory while trying to allocate 65872400 bytes.",
            Request("compile", 65872400),
        ),
        ("Allocating 536997920 bytes exceeds the memory limit of 16777216 bytes.", Request("compile", 536997920)),
        (
            "Ran out of memory in memory space hbm. Used 20.00G of 16.00G hbm. Exceeded hbm capacity by 4.00G.",
            Request("compile", None, "20.00G"),
        ),
        (
            "{{function_node __wrapped__Mul_device_/job:localhost/replica:0/task:0/device:GPU:0}} "
            "failed to allocate memory [Op:Mul]",
            Request("op", op="Mul", device="GPU:0"),
        ),
        (
            "Failed copying input tensor from /device:CPU:0 to /device:GPU:0 in order to run _EagerConst: "
            "Dst tensor is not initialized.",
            Request("op", device="CPU:0"),
        ),
        (
            "Unable to allocate 3.05 GiB for an array with shape (1024, 800, 1000) and data type float32",
            Request("host", 1024 * 800 * 1000 * 4, shape=(1024, 800, 1000), dtype="float32"),
        ),
        (
            "OOM when allocating tensor with shape[] and type half on /device:GPU:1 by allocator GPU_1_bfc",
            Request("op", 2, dtype="half", device="GPU:1", allocator="GPU_1_bfc"),
        ),
        (
            "OOM when allocating tensor with shape[3] and type resource on /device:GPU:0 by allocator GPU_0_bfc",
            Request("op", None, shape=(3,), dtype="resource", device="GPU:0", allocator="GPU_0_bfc"),
        ),
    ],
)
def test_other_texts(text: str, request_: Request) -> None:
    assert read_error(text) == request_


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/data/checkpoint.index.tempstate; No space left on device",
        "Received message larger than max (5242880 vs. 4194304)",
        "Input to reshape is a tensor with 4 values, but the requested shape has 8",
    ],
)
def test_what_is_no_lack_of_memory(text: str) -> None:
    assert read_error(text) is None


def test_torch_s_error_has_a_size() -> None:
    text = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB."
    assert read_error(text, "OutOfMemoryError") == Request("op", None, "2.00GiB")


def test_an_error_that_only_speaks_of_it_is_not_it() -> None:
    assert read_error("Stop before the GPU is out of memory.", "BudgetExceededError") is None
    assert read_error("CUDA_ERROR_OUT_OF_MEMORY", "InternalError") == Request("op")


def test_python_tells_nothing_of_the_size() -> None:
    assert read_error("", "MemoryError") == Request("host")


@pytest.mark.parametrize(
    ("size", "rounded", "is_it"),
    [
        (204_511_748, "195.04MiB", True),
        (162_681_744, "155.14MiB", True),  # 155.1454: TensorFlow cuts it to KiB first
        (204_511_748 + 9000, "195.04MiB", False),
        (1536 * 1024**2, "1.50GiB", True),
        (20 * 1024**3, "20.00G", True),
        (7, "7", True),
        (7, "", False),
        (7, "seven", False),
    ],
)
def test_a_rounded_size(size: int, rounded: str, is_it: bool) -> None:
    assert could_be(size, rounded) is is_it
