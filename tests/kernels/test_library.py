"""The custom operators in ONNX Runtime: what the bodies in standard operators compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxplain.contract.explain import KERNELS_DOMAIN

from .cases import MAKERS, Call, call_of, gate, pool, random_pool
from .counting import counting_library

pytestmark = pytest.mark.xdist_group("kernels")  # what they share takes long to make


def session(model: onnx.ModelProto, library: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def small_gate() -> Call:
    return gate("SoftGate", "float32", [2, 3])


def small_pool() -> Call:
    return pool(random_pool(1, 2), held=False, dtype="float32")


def run(call: Call, library: Path) -> list[np.ndarray]:
    feeds = {f"x{i}": array for i, array in enumerate(call.inputs)}
    return session(call.model(), library).run(None, feeds)


@pytest.mark.parametrize("name", MAKERS)
def test_an_operator_computes_what_its_body_does(name: str, library: Path):
    call_of(name).check(run(call_of(name), library))


def test_results_are_the_same_bits_whatever_the_threads(library: Path):
    call = small_pool()
    feeds = {f"x{i}": array for i, array in enumerate(call.inputs)}
    graph = session(call.model(), library)
    first = graph.run(None, feeds)[0]
    for _ in range(5):
        np.testing.assert_array_equal(graph.run(None, feeds)[0], first)


def test_a_session_takes_one_batch_after_another(library: Path):
    large, small = (gate("SoftGate", "float32", [n, 3, 4, 4]) for n in (5, 1))
    graph = session(large.model(), library)
    for call in (large, small, large):
        call.check(graph.run(None, {f"x{i}": array for i, array in enumerate(call.inputs)}))


@pytest.mark.parametrize(
    ("make", "wrong", "said"),
    [
        (small_gate, np.zeros([3, 3], np.float32), "neither"),
        (small_gate, np.zeros([2, 2, 2, 3], np.float32), "neither"),
        (small_pool, np.zeros([1, 3, 1, 1], np.float32), "neither"),
    ],
    ids=["another size", "two axes more", "another batch"],
)
def test_shapes_that_do_not_belong_together_are_an_error(
    make: Callable[[], Call], wrong: np.ndarray, said: str, library: Path
):
    call = make()
    model = call.model()
    for value in model.graph.input:
        del value.type.tensor_type.shape.dim[:]
        value.type.tensor_type.ClearField("shape")
    feeds = {f"x{i}": wrong if i == 1 else array for i, array in enumerate(call.inputs)}
    with pytest.raises(Exception, match=f"{call.operator}: the cotangent's shape is {said}"):
        session(model, library).run(None, feeds)


def test_a_window_without_axes_is_an_error(library: Path):
    call = small_pool()
    model = call.model()
    (node,) = (n for n in model.graph.node if n.domain == KERNELS_DOMAIN)
    (kernel,) = (a for a in node.attribute if a.name == "kernel_shape")
    kernel.ints[:] = [1] * 4
    with pytest.raises(Exception, match="kernel_shape is not of one to three axes"):
        session(model, library)


def test_every_function_of_the_runtime_that_is_declared_is_the_one_that_is_called(
    library: Path, tmp_path: Path
):
    """What the table holds at a place is told by calling it: all but the GPU's stream here."""
    counting = counting_library(library, tmp_path)
    for one in (call_of("SoftGate, float32, [33, 17, 31] × []"), small_pool()):
        one.check(run(one, counting.path))
    right = small_gate()
    wrong = replace(right, inputs=(np.zeros([1, 3], np.float32), *right.inputs[1:]))
    with pytest.raises(Exception, match="neither"):
        run(wrong, counting.path)
    assert {name for name, count in counting.counts().items() if not count} == {
        "KernelContext_GetGPUComputeStream"
    }


def test_an_older_runtime_is_told_which_it_must_be(library: Path, tmp_path: Path):
    old = counting_library(library, tmp_path, newest=17)
    with pytest.raises(Exception, match=r"needs ONNX Runtime 1\.18 or later, not 1\.\d+"):
        session(call_of("SoftGate, float32, [1] × []").model(), old.path)
