"""One command measures a GPU: what it makes of its parts, without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from onnxplain.bench.gpu import kernels
from onnxplain.bench.gpu.__main__ import measure, sections
from onnxplain.bench.gpu.table import gpu_table
from onnxplain.bench.suite import graphs

TIMES = {
    "machine": {"gpu": "NVIDIA L4"},
    "records": [
        {
            "network": "resnet50",
            "batch": 8,
            "rows": [
                {"kind": "forward", "name": "cuda float32", "median": 0.002},
                {"kind": "explain", "name": "cuda float32", "median": 0.005, "cosine": 1.0},
                {"kind": "explain", "name": "cuda float32, kernels", "median": 0.004, "cosine": 1},
                {"kind": "explain", "name": "cuda float16", "median": 0.003, "cosine": 1},
            ],
        }
    ],
}
KERNEL = {"operation": "SoftGate", "dtype": "float16", "batch": 8, "body": 3e-4, "kernel": 1e-4}
PARTS: dict[str, Any] = {
    "times": lambda: TIMES,
    "kernels": lambda: [KERNEL | {"GB/s": 250.0, "error": 4e-4}, {"problem": "not installed"}],
    "launches": lambda: [
        {
            "network": "resnet50",
            "provider": "cuda",
            "nodes": {"forward": {"Conv": 53}, "explain": {"Conv": 106}},
        }
    ],
}


def failing() -> Any:
    raise RuntimeError("there is no such thing")


def test_what_fails_does_not_take_the_rest_with_it(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    found = measure(path, {"parity": failing, **PARTS}, "cuda")
    assert found == json.loads(path.read_text())
    assert found["problems"] == {"parity": "there is no such thing"}
    assert found["times"] == TIMES
    assert found["seconds"].keys() == {"parity", *PARTS}


def test_the_table_has_launches_beside_milliseconds(tmp_path: Path) -> None:
    text = gpu_table(measure(tmp_path / "gpu.json", {"parity": failing, **PARTS}, "cuda"))
    assert "| resnet50 | cuda float32 | 8 | 2.00 ms | 5.00 ms | 1.000000 | 53 : 106 |" in text
    assert "| resnet50 | cuda float32, kernels | 8 |  | 4.00 ms | 1.000000 |  |" in text
    assert "| resnet50 | cuda float16 | 8 |  | 3.00 ms | 1.000000 |  |" in text  # others count
    assert "| SoftGate, float16 | 8 | 0.300 ms | 0.100 ms | 3.00 | 250 | 4e-04 |" in text
    assert "parity: there is no such thing" in text
    assert "Medians on NVIDIA L4" in text


def test_all_that_is_asked_for_is_measured() -> None:
    assert [*sections("cuda", ["resnet50"], [1], 1)] == ["times", "kernels", "launches", "parity"]


def test_forward_and_explain_are_timed_with_cuda_graphs_and_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graphs, "usable", lambda provider: ["float32"])
    named = {(each.name, each.kind) for each in graphs.graph_candidates("cuda", [1], maps=False)}
    for name in ("cuda float32", "cuda float32, CUDA graph"):
        assert {(name, "forward"), (name, "explain")} <= named


@pytest.mark.parametrize("name", kernels.OPERATIONS)
def test_an_operation_is_a_call_and_its_body_has_none(name: str) -> None:
    operation = kernels.OPERATIONS[name]
    call, body = (operation.model(2, "float16", calls) for calls in (True, False))
    (node,) = call.graph
    assert node.op_type.partition("_")[0] == name
    assert not body.functions
    assert body.graph.num_nodes() > 2
    for model in (call, body):
        assert ir.to_proto(model).graph.output[0].name == "out"


def test_without_the_library_there_is_nothing_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "library", lambda: None)
    assert "problem" in next(kernels.kernel_records("cpu", [1], 1))
