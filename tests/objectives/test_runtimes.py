"""Objectives on other runtimes and in other precisions than ONNX Runtime's float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from torch import nn

import onnxplain
from onnxplain.contract.objective import OBJECTIVE, SEED
from onnxplain.runtime import Explainer, load
from onnxplain.runtime.conversion.half import convert
from onnxplain.runtime.inputs.objective import as_inputs
from onnxplain.runtime.inputs.targets import target_input
from onnxplain.runtime.verification import agreement, sample

from .networks import SIZE, vector
from .test_detectors import network as detector
from .test_maps import network as maps
from .test_sequences import network as recogniser

CASES: dict[str, tuple[nn.Module, dict[str, Any]]] = {
    "detection": (detector("yolov5"), {"size": 64, "multi_target": True}),
    "segment": (maps(), {"multi_target": True}),
    "sequence": (recogniser(True), {"multi_target": True}),
    "embedding": (vector(5), {"objective": "embedding"}),
    "value": (vector(5), {"objective": "value"}),
}


@pytest.fixture(scope="module")
def explainers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Explainer, Path]]:
    folder = tmp_path_factory.mktemp("runtimes")
    found = {}
    for name, (network, options) in CASES.items():
        path = folder / f"{name}.onnx"
        size, given = options.get("size", SIZE), {"method": "excitation", **options}
        onnxplain.export(network, path, **given | {"size": size})
        found[name] = load(path, "cpu"), path
    return found


@pytest.mark.parametrize("case", CASES)
def test_openvino_agrees(case: str, explainers: dict[str, tuple[Explainer, Path]]) -> None:
    right, path = explainers[case]
    assert agreement(load(path, "openvino"), right, sample(right)).cosine > 0.99999


@pytest.mark.parametrize("case", CASES)
def test_half_precision_stays_near(
    case: str, explainers: dict[str, tuple[Explainer, Path]]
) -> None:
    right, path = explainers[case]
    half = onnxruntime.InferenceSession(convert(path, "float16"))
    images = sample(right)
    given = {"image": images, **as_inputs(right.backend.signature, noise(right), len(images))}
    if right.backend.signature.has_target:
        given["target"] = target_input(right.backend.signature, None, len(images))
    found = half.run([OBJECTIVE, "pullback"], given)
    expected = right.backend.run(given)
    for name, array in zip((OBJECTIVE, "pullback"), found, strict=True):
        error = np.linalg.norm(array - expected[name]) / np.linalg.norm(expected[name])
        assert error < 0.05, (name, error)


def test_what_is_scaled_in_float16_is_the_seed_of_the_sweep(
    explainers: dict[str, tuple[Explainer, Path]], tmp_path: Path
) -> None:
    """And never what follows the target, which the objective reads."""
    path = explainers["value"][1]

    def scaled(file: Path) -> set[str]:
        graph = onnx.load_from_string(convert(file, "float16")).graph
        factors = {name for node in graph.node for name in node.input if name.endswith("_factor")}
        return {name.removesuffix("_times_factor") for name in factors}

    assert scaled(path) == {SEED, "pullback_scaled"}
    model = onnx.load(path)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["other" if name == SEED else name for name in names]
    onnx.save(model, tmp_path / "unnamed.onnx")
    assert scaled(tmp_path / "unnamed.onnx") == set()


def noise(explainer: Explainer) -> dict[str, Any]:
    inputs = explainer.metadata.objective.inputs
    return {n: np.ones(one.shape) for n, one in inputs.items() if one.default is None}


@pytest.mark.parametrize("case", ["segment", "sequence", "embedding"])  # detection: 7 s
def test_tensorrt_takes_it(case: str, explainers: dict[str, tuple[Explainer, Path]]) -> None:
    pytest.importorskip("tensorrt_rtx")
    from onnxplain.runtime.sessions.tensorrt import build_engine

    build_engine(explainers[case][1])


def test_every_node_has_a_kernel_on_a_gpu(explainers: dict[str, tuple[Explainer, Path]]) -> None:
    from onnxplain.export.operators import row_of

    for _, path in explainers.values():
        kinds = {node.op_type for node in onnx.load(path).graph.node}
        assert not [kind for kind in kinds if not row_of(kind).on_cuda]
