"""What ONNX Runtime's CUDA provider takes of graphs that take photographs."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxplain.runtime.fake_cuda.ask import Claims, claims

from .small import explain_graph

CASES = {
    "rgb": {},
    "nv12": {"pixels": "nv12", "geometry": "photograph", "quantise_output": "int8"},
    "gray": {"pixels": "gray", "interpolation": "lanczos", "fit": "letterbox"},
    "float16": {"geometry": "photograph", "quantise_output": "float16", "method": "gradcam"},
}

ON_SIZES = {
    *("Add", "Concat", "Div", "Gather", "Max", "Min", "Mul", "Neg", "Squeeze", "Sub"),
    *("Equal", "Where", "Cast", "Unsqueeze", "Reshape", "Split"),
}
"""Of single whole numbers, which ONNX Runtime leaves where Shape puts them."""


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = []
    for name, options in CASES.items():
        folder = tmp_path_factory.mktemp(name)
        paths.append(explain_graph(folder, preprocess=True, check=False, **options))
    return paths


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_no_pixel_leaves_the_gpu(
    graphs: list[Path], environment: dict[str, str], precision: str
) -> None:
    for found in claims([(path, precision) for path in graphs], environment):
        assert isinstance(found, Claims), found
        assert found.whole
        assert not found.on_processor.keys() - ON_SIZES
