"""The custom operators in ONNX Runtime: what the bodies in standard operators compute."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from onnxplain.contract.explain import KERNELS_DOMAIN

from .cases import MAKERS, Call, call_of, gate, pool, random_pool
from .counting import SOURCES, counting_library

pytestmark = pytest.mark.xdist_group("kernels")  # what they share takes long to make


def session(
    model: onnx.ModelProto, library: Path, threads: int = 2
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def small_gate() -> Call:
    return gate("SoftGate", "float32", [2, 3])


def small_pool() -> Call:
    return pool(random_pool(1, 2), held=False, dtype="float32")


def gate_of_several_parts() -> Call:
    return call_of("SoftGate, float32, [33, 17, 31] × []")


def run(call: Call, library: Path) -> list[np.ndarray]:
    feeds = {f"x{i}": array for i, array in enumerate(call.inputs)}
    return session(call.model(), library).run(None, feeds)


@pytest.mark.parametrize("name", MAKERS)
def test_an_operator_computes_what_its_body_does(name: str, library: Path):
    call_of(name).check(run(call_of(name), library))


@pytest.mark.parametrize("make", [small_pool, gate_of_several_parts], ids=["pool", "gate"])
def test_results_are_the_same_bits_whatever_the_threads(make: Callable[[], Call], library: Path):
    call = make()
    feeds = {f"x{i}": array for i, array in enumerate(call.inputs)}
    alone, together = (session(call.model(), library, threads) for threads in (1, 2))
    expected = alone.run(None, feeds)[0]
    for _ in range(5):
        np.testing.assert_array_equal(together.run(None, feeds)[0], expected)


class Counts(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _names = ("arena", "ordblks", "smblks", "hblks", "mapped", "usmblks", "fsmblks", "used")
    _fields_ = tuple((name, ctypes.c_size_t) for name in (*_names, "fordblks", "keepcost"))


def in_use() -> int:
    """Bytes that this process has from its allocator."""
    counts = ctypes.CDLL(None).mallinfo2
    counts.restype = Counts
    found = counts()
    return int(found.mapped + found.used)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc's alone counts")
def test_a_large_window_leaves_nothing_behind(library: Path):
    x = np.zeros([1, 1, 1001, 1001], np.float32)
    window = {"kernel_shape": [2, 2], "strides": [1, 1], "dilations": [1, 1], "pads": [0] * 4}
    inputs = (x, x[..., :-1, :-1], np.array(0.3, np.float32))
    call = Call("WeightedPoolGrad_1", "float32", inputs, (x,), window)
    before = in_use()
    run(call, library)
    assert in_use() - before < x.nbytes / 2  # it takes twice that


def test_what_is_behind_a_tensor_of_unknown_rank_is_not_taken_for_a_scalars(library: Path):
    """ONNX Runtime says of an unknown rank that it is none."""
    call = small_gate()
    model = call.model()
    model.graph.input.append(onnx.helper.make_tensor_value_info("s", TensorProto.INT64, [None]))
    for node in model.graph.node[:2]:
        node.CopyFrom(onnx.helper.make_node("Reshape", [node.input[0], "s"], list(node.output)))
    after = onnx.helper.make_node(
        "Transpose", list(model.graph.node[-1].input), ["y0"], perm=[1, 0]
    )
    model.graph.node[-1].CopyFrom(after)
    feeds = {f"x{i}": array for i, array in enumerate(call.inputs)}
    (found,) = session(model, library).run(None, feeds | {"s": np.array([2, 3])})
    call.check([found.T])


def test_operators_outlive_what_is_static_in_the_library(library: Path, tmp_path: Path):
    host = tmp_path / "host"
    source = str(Path(__file__).parent / "host.cpp")
    command = ["c++", "-std=c++17", f"-I{SOURCES}", source, "-o", str(host), "-ldl"]
    subprocess.run(command, check=True)
    overwritten = {**os.environ, "MALLOC_PERTURB_": "85"}  # what is freed
    done = subprocess.run(
        [str(host), str(library)], env=overwritten, capture_output=True, text=True, check=True
    )
    assert done.stdout == "SoftGate\n"


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
    for one in (gate_of_several_parts(), small_pool()):
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
