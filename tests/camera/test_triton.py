"""The package for Triton of a file that takes photographs: frames of uint8, of any size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from onnxplain.runtime.sessions import open_backend
from onnxplain.serve.packages.triton import Options, model_config, write_repository

from .files import answer

TYPES = {pb.TYPE_UINT8: np.uint8, pb.TYPE_INT64: np.int64, pb.TYPE_INT8: np.int8}
TYPES |= {pb.TYPE_FP32: np.float32, pb.TYPE_FP16: np.float16}


def packaged(graph: Path, repository: Path) -> tuple[pb.ModelConfig, Path]:
    """What Triton reads, and the graph that it runs."""
    folder = write_repository(graph, repository, "model", Options(batch=4))
    config = text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())
    return config, folder / "1" / "model.onnx"


@pytest.mark.parametrize(
    ("kind", "image", "pullback"),
    [
        ("rgb", [-1, -1, 3], [3, 32, 32]),
        ("nv12", [-1, -1], [3, 32, 32]),
        ("whole", [-1, -1, 3], [3, -1, -1]),
        ("targets", [-1, -1, 3], [-1, 3, 32, 32]),
    ],
)
def test_the_config_is_of_frames_of_any_size(
    kinds: dict[str, Path], tmp_path: Path, kind: str, image: list[int], pullback: list[int]
) -> None:
    config, _ = packaged(kinds[kind], tmp_path)
    assert (config.input[0].name, config.input[0].data_type) == ("image", pb.TYPE_UINT8)
    dims = {port.name: list(port.dims) for port in [*config.input, *config.output]}
    assert (dims["image"], dims["pullback"]) == (image, pullback)
    assert config.max_batch_size == 4  # of one size: Triton batches nothing else


@pytest.mark.parametrize("kind", ["rgb", "nv12", "whole"])
def test_the_graph_is_what_the_config_says(
    kinds: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """Run as Triton warms it up, with ONNX Runtime."""
    config, graph = packaged(kinds[kind], tmp_path)
    for warm in config.model_warmup:
        given = warm.inputs["image"]
        image = np.zeros((warm.batch_size, *given.dims), TYPES[given.data_type])
        found = answer(graph, image)
        assert found.keys() == {port.name for port in config.output}
        for port in config.output:
            array = found[port.name]
            assert array.dtype == TYPES[port.data_type], port.name
            shape = [*port.reshape.shape] if port.HasField("reshape") else [*port.dims]
            fits = [
                wanted in (-1, size) for wanted, size in zip(shape, array.shape[1:], strict=True)
            ]
            assert (len(array), all(fits)) == (warm.batch_size, True), port.name


def test_a_graph_of_a_fixed_batch_leaves_the_photographs_size_open(kinds: dict[str, Path]) -> None:
    fixed = replace(open_backend(kinds["rgb"], "cpu").signature, batch=2)
    config = model_config(fixed, "model", Options())
    assert (config["input"][0]["dims"], config["max_batch_size"]) == ([2, -1, -1, 3], 0)
    (warm,) = config["model_warmup"]
    (image,) = (one["value"] for one in warm["inputs"] if one["key"] == "image")
    assert image["dims"] == [2, 64, 64, 3]


@pytest.mark.parametrize(("kind", "warm"), [("rgb", [1, 64, 64, 3]), ("nv12", [1, 96, 64])])
def test_an_engine_is_a_plan_that_is_warmed_up_within_its_profile(
    kinds: dict[str, Path], tmp_path: Path, kind: str, warm: list[int]
) -> None:
    """As TensorRT's for RTX compiles it, which needs no GPU for that; Triton has the other."""
    pytest.importorskip("tensorrt_rtx")
    from onnxplain.runtime.sessions.tensorrt.build import build_engine

    engine = replace(build_engine(kinds[kind], sm=[89], keep=False), provider="tensorrt")
    engine.write(tmp_path / "m.engine")
    folder = write_repository(tmp_path / "m.engine", tmp_path, "model", Options(batch=4))
    assert (folder / "1" / "model.plan").read_bytes() == engine.payload
    config = text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())
    assert (config.backend, config.max_batch_size) == ("tensorrt", 0)
    assert config.input[0].data_type == pb.TYPE_UINT8
    assert list(config.input[0].dims) == [1] + [-1 if size > 3 else size for size in warm[1:]]
    (first,) = config.model_warmup
    assert list(first.inputs["image"].dims) == warm
    least, _, most = engine.profile["image"]
    assert all(a <= size <= b for a, size, b in zip(least, warm, most, strict=True))
