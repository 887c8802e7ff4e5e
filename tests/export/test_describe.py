"""What a file says of itself: that a method found nothing to change, which pixels it takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli.app import app
from onnxplain.errors import SourceError
from onnxplain.export import Method
from onnxplain.export.methods import METHODS
from onnxplain.export.operators import VJPS
from onnxplain.runtime.inputs.batches import as_batch

from .graphs import explain, head, images, node, write

X = images(2, 3, 8, 8)


def network(folder: Path, *nodes: onnx.NodeProto, of: str = "h") -> Path:
    """Of nodes from the convolution's result `c` to `h`."""
    conv = node("Conv", ["x", "A"], ["c"], pads=[1] * 4)
    tail, weight = head(of, 4 * 64)
    return write(folder / "net.onnx", [conv, *nodes, *tail], {"A": images(4, 3, 3, 3)} | weight)


def said(path: Path, method: str) -> list[str]:
    metadata = onnxplain.export(path, path.with_suffix(".explain.onnx"), method=method)
    return [note for note in metadata.notes if "gives what gradient gives" in note]


GELU, TANH, RELU = (node(name, ["c"], ["h"]) for name in ("Gelu", "Tanh", "Relu"))
POOL = node("MaxPool", ["c"], ["h"], kernel_shape=[3, 3], pads=[1] * 4)


@pytest.mark.parametrize(
    ("method", "nodes", "others"),
    [
        ("excitation", [GELU], "; semantic would replace some"),
        ("guided", [GELU], "; semantic would replace some"),
        ("deconvnet", [GELU], "; semantic would replace some"),
        ("guided", [POOL], "; excitation and semantic would replace some"),
        ("excitation", [TANH], ""),
        ("semantic", [TANH], ""),
    ],
)
def test_a_method_that_replaces_no_derivative_says_that_it_is_the_gradient(
    method: str, nodes: Sequence[onnx.NodeProto], others: str, tmp_path: Path
) -> None:
    path = network(tmp_path, *nodes)
    (note,) = said(path, method)
    assert note.startswith(f"{method} replaces no derivative of this network")
    assert note.partition("gradient gives")[2] == others
    shown = CliRunner().invoke(app, ["info", str(path.with_suffix(".explain.onnx"))])
    assert f"{method} replaces no derivative" in " ".join(shown.output.split())
    pullbacks = [explain(path, X, method=name).pullback for name in (method, "gradient")]
    np.testing.assert_array_equal(*pullbacks)


def test_the_command_says_so(tmp_path: Path) -> None:
    path = network(tmp_path, GELU)
    ran = CliRunner().invoke(app, ["export", str(path), "-o", str(tmp_path / "e.onnx")])
    assert ran.exit_code == 0, ran.output
    assert "semantic would replace some" in " ".join(ran.output.split())


@pytest.mark.parametrize(
    ("method", "nodes"),
    [
        ("excitation", [RELU]),
        ("guided", [RELU]),
        ("deconvnet", [RELU]),
        ("semantic", [GELU]),
        ("gradient", [GELU]),
        ("input-x-gradient", [GELU]),
        ("gradcam", [GELU]),
        ("lrp-zplus", [RELU]),
    ],
)
def test_others_say_nothing(method: str, nodes: Sequence[onnx.NodeProto], tmp_path: Path) -> None:
    assert said(network(tmp_path, *nodes), method) == []


def test_a_method_of_ones_own_may_replace_a_layers_derivative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "mine", Method("mine", {"Conv": VJPS["Conv"]}))
    assert said(network(tmp_path, GELU), "mine") == []


@pytest.mark.parametrize(
    ("options", "mean", "std"),
    [
        ({"scale": 255}, 0.0, 1 / 255),
        ({"scale": 255, "mean": [127.5] * 3}, 0.5, 1 / 255),
        ({"scale": 255.0, "mean": [127.5] * 3, "std": [51.0] * 3}, 0.5, 0.2),
        ({"mean": [0.5] * 3}, 0.5, None),
    ],
)
def test_pixels_up_to_255_are_those_up_to_1_by_their_mean_and_std(
    options: dict[str, Any], mean: float, std: float | None, tmp_path: Path
) -> None:
    path = network(tmp_path, RELU)
    metadata = onnxplain.export(path, tmp_path / "e.onnx", **options)
    pre = metadata.preprocessing
    np.testing.assert_allclose(pre.mean, [mean] * 3)
    if std is not None:
        np.testing.assert_allclose(pre.std, [std] * 3)
        photograph = np.full([8, 8, 3], 200, np.uint8)
        batch, _ = as_batch([photograph], pre)
        np.testing.assert_allclose(batch, (200 / 255 - mean) / std, rtol=1e-5)
    assert not any("assumed" in note for note in metadata.notes)


@pytest.mark.parametrize("scale", [0.0, -255.0, float("nan"), float("inf")])
def test_a_scale_is_a_positive_number(scale: float, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="scale is the greatest pixel"):
        onnxplain.export(network(tmp_path, RELU), tmp_path / "e.onnx", scale=scale)
