"""The CUDA kernels: their arithmetic, the GPUs they are for, and where ONNX Runtime puts them."""

from __future__ import annotations

import ctypes
import re
import shutil
import sys
from itertools import product
from pathlib import Path

import onnx
import pytest

import onnxplain
from onnxplain.runtime import fake_cuda
from onnxplain.runtime.fake_cuda.ask import Claims, claims
from onnxplain.runtime.sessions.onnx_runtime import cuda

from . import played
from .cases import MAKERS, call_of, pool, random_pool
from .test_loading import IMAGES, exported

pytestmark = pytest.mark.xdist_group("kernels")

# Few threads of a large tensor are enough for a processor that plays them.
SMALL = [name for name, maker in MAKERS.items() if 0 < maker.elements < 5000]


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    return played.compiled(tmp_path_factory.mktemp("played"))


@pytest.mark.parametrize("name", SMALL)
def test_the_source_computes_what_the_body_does(name: str, processor: ctypes.CDLL):
    """Played by threads of the processor, exponentials its own."""
    call_of(name).check(played.run(processor, call_of(name)))


@pytest.fixture
def with_cuda(installed: Path) -> Path:
    if shutil.which("nvcc") is None:
        pytest.skip("there is no nvcc")
    return installed


@pytest.fixture(scope="module")
def environment(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a process that sees the library, and a CUDA that answers."""
    if (reason := fake_cuda.missing()) is not None:
        pytest.skip(reason)
    return fake_cuda.build(tmp_path_factory.mktemp("fake")) | {"PYTHONPATH": str(installed)}


def test_it_holds_machine_code_for_every_generation_from_turing_on(with_cuda: Path):
    code = (with_cuda / "onnxplain_kernels" / "onnxplain_kernels.so").read_bytes()
    targets = {int(sm) for sm in re.findall(rb"sm_(\d+)", code)}
    assert targets >= {75, 80, 86, 89, 90, 100, 120}


@pytest.mark.usefixtures("with_cuda")
def test_no_call_leaves_the_gpu(environment: dict[str, str], tmp_path: Path):
    cases = list(product(["excitation", "semantic"], ["float32", "float16"], [True, False]))
    graphs = [(exported(tmp_path, kept, method=m), precision) for m, precision, kept in cases]
    found = dict(zip(cases, claims(graphs, environment, run=True), strict=True))
    for (method, precision, kept), claim in found.items():
        assert isinstance(claim, Claims), claim
        assert claim.whole
        assert not claim.on_processor
        if kept:
            names = {"excitation": ("SoftGate", "SoftMax"), "semantic": ("NormalGate", "Weighted")}
            gate, pool = names[method]
            wanted = {gate: 2, f"{pool}PoolGrad_1": 1, f"{pool}PoolGrad_2": 1}
            assert wanted.items() <= claim.nodes.items()
            assert claim.kernels < found[method, precision, False].kernels


@pytest.mark.usefixtures("with_cuda")
def test_each_call_is_one_launch(environment: dict[str, str], tmp_path: Path):
    calls = [
        call_of("SoftGate, float32, [2, 700] × [3]"),
        call_of("NormalGate, float32, [33, 17, 31] × []"),
        *(pool(random_pool(1, 2), held, "float32") for held in (False, True)),
    ]
    graphs = [(tmp_path / f"{call.operator}.onnx", "float32") for call in calls]
    for call, (path, _) in zip(calls, graphs, strict=True):
        model = call.model()
        for value, array in zip(model.graph.input, call.inputs, strict=True):
            for dim, size in zip(value.type.tensor_type.shape.dim, array.shape, strict=True):
                dim.dim_value = size
        onnx.save(model, path)
    for call, claim in zip(calls, claims(graphs, environment, run=True), strict=True):
        assert isinstance(claim, Claims), claim
        assert claim.nodes == {call.operator: 1, "Cast": 1}
        assert claim.kernels == 2


@pytest.mark.skipif(cuda.missing_cuda() is not None, reason=str(cuda.missing_cuda()))
@pytest.mark.parametrize("graphs", [False, True], ids=["launched", "recorded"])
@pytest.mark.parametrize("method", ["excitation", "semantic"])
def test_a_gpu_computes_what_the_bodies_do(
    method: str, graphs: bool, with_cuda: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delitem(sys.modules, "onnxplain_kernels", raising=False)
    monkeypatch.syspath_prepend(with_cuda)
    fused = onnxplain.load(exported(tmp_path, True, method=method), "cuda", cuda_graphs=graphs)
    plain = onnxplain.load(exported(tmp_path, False, method=method), "cpu")
    for _ in range(3):
        found, wanted = fused(IMAGES, [1, -1]).pullback, plain(IMAGES, [1, -1]).pullback
        assert abs(found - wanted).max() < 1e-4 * abs(wanted).max()
