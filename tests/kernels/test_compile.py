"""The kernels compile for every GPU architecture that is promised, on a machine without a GPU."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from onnxplain.errors import BackendError, InputError
from onnxplain.kernels import triton_gates, triton_pools
from onnxplain.kernels.compile import DTYPES, TARGETS, compile_kernel
from onnxplain.kernels.pool import Pool

RESNET = Pool(kernel=(3, 3), strides=(2, 2), dilations=(1, 1), before=(1, 1)).constants()
GATE = {"NORMAL": False, "BLOCK": triton_gates.BLOCK}
KERNELS: dict[str, tuple[Any, dict[str, int | bool]]] = {
    "SoftGate": (triton_gates.soft_gate_kernel, GATE),
    "ReluNormalGate": (triton_gates.relu_soft_gate_kernel, GATE | {"NORMAL": True}),
    "statistics": (triton_pools.pool_statistics_kernel, RESNET | {"BLOCK": triton_pools.BLOCK}),
    "SoftMaxPoolGrad": (
        triton_pools.soft_max_pool_grad_kernel,
        RESNET | {"STORED": False, "HELD": False, "PHASES": 4, "CELLS": 64},
    ),
    "WeightedPoolGrad, statistics stored": (
        triton_pools.soft_max_pool_grad_kernel,
        RESNET | {"STORED": True, "HELD": True, "PHASES": 4, "CELLS": 64},
    ),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_compiles_for_the_target_with_every_dtype(name: str, target: int):
    kernel, constants = KERNELS[name]
    for dtype, short in DTYPES.items():
        compiled = compile_kernel(kernel, dtype, constants, target)
        assert f".target sm_{target}" in compiled.ptx
        assert f".entry {compiled.name}(" in compiled.ptx
        assert compiled.cubin.startswith(b"\x7fELF")
        assert next(iter(compiled.signature.values())) == f"*{short}"
        # A launch passes the arguments of the signature and two pointers to scratch memory.
        parameters = re.findall(r"^\s*\.param", compiled.ptx, re.MULTILINE)
        assert len(parameters) == len(compiled.signature) + 2
        assert not re.search(r"\b(atom|red)\.", compiled.ptx)  # the same bits in every run


def test_without_triton_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch):
    kernel, constants = KERNELS["SoftGate"]
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(BackendError, match=r"need the package triton.*pip install triton"):
        compile_kernel(kernel, "float32", constants, 90)
    monkeypatch.delitem(sys.modules, "onnxplain.kernels.torch_ops", raising=False)
    with pytest.raises(BackendError, match=r"need the package triton.*pip install triton"):
        import_module("onnxplain.kernels.torch_ops")


def test_promised_alignment_makes_vector_loads():
    kernel, constants = KERNELS["SoftGate"]
    aligned = ["z", "g", "out", "n"]
    plain = compile_kernel(kernel, "float32", constants, 90)
    wide = compile_kernel(kernel, "float32", constants, 90, multiples_of_16=aligned)
    assert "ld.global.v4" not in plain.ptx
    assert "ld.global.v4" in wide.ptx
    assert "st.global.v4" in wide.ptx


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"target": 70}, "no target sm_70; choose one of 80, 86, 89, 90, 100, 120"),
        ({"dtype": "int8"}, "no kernels for int8"),
        ({"constants": {"BLOCK": 1024}}, "takes the constants"),
    ],
)
def test_what_there_is_no_kernel_for_is_a_sentence(changed: dict[str, Any], message: str):
    kernel, constants = KERNELS["SoftGate"]
    given = {"dtype": "float32", "constants": constants, "target": 90} | changed
    with pytest.raises(InputError, match=message):
        compile_kernel(kernel, **given)
