"""Products of methods: each factor by its own rules, over one forward pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import onnxplain
from onnxplain.errors import SourceError
from onnxplain.reference.answers import graph_in_float64
from onnxplain.reference.parity import Parity

SHAPE = (3, 12, 10)
IMAGES = np.random.default_rng(0).standard_normal((2, *SHAPE), np.float32)
TARGETS = np.array([1, 3])


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2, 2),
        torch.nn.Conv2d(6, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    ).eval()


@pytest.fixture(scope="module")
def source(net: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as a file."""
    path = tmp_path_factory.mktemp("source") / "net.onnx"
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 20]> net (float[N, 3, 12, 10] x) => (float[N, 5] y) {
            z1 = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
            a1 = Relu (z1)
            p1 = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a1)
            z2 = Conv <pads = [1, 1, 1, 1]> (p1, w3, b3)
            a2 = Relu (z2)
            z3 = Conv <pads = [1, 1, 1, 1]> (a2, w5, b5)
            a3 = Relu (z3)
            mean = GlobalAveragePool (a3)
            features = Flatten (mean)
            y = Gemm <transB = 1> (features, w9, b9)
        }
    """)
    names = {"weight": "w", "bias": "b"}
    for name, tensor in net.state_dict().items():
        index, kind = name.split(".")
        array = tensor.numpy()
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, names[kind] + index))
    onnx.save(model, path)
    return path


Make = Callable[..., onnxplain.Explainer]


@pytest.fixture(scope="module")
def made(source: Path) -> Make:
    files: dict[str, Path] = {}

    def make(method: str, precision: str = "float32", **options: Any) -> onnxplain.Explainer:
        """Of what was asked for before, the same file."""
        asked = repr((method, options))
        if asked not in files:
            files[asked] = source.with_name(f"{len(files)}.explain.onnx")
            maps = "cam" in method and "layer" not in options
            layer = {"layer": "z2"} if maps else {}
            onnxplain.export(source, files[asked], method=method, **layer, **options)
        return onnxplain.load(files[asked], "cpu", precision)

    return make


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_guided_gradcam_is_captums(made: Make, net: torch.nn.Module) -> None:
    """The map resized bilinearly, as in the paper; Captum's default is the nearest element."""
    attr = pytest.importorskip("captum.attr")
    explainer = made("guided-gradcam")
    double = torch.nn.Sequential(*net).double()
    expected = attr.GuidedGradCam(double, double[3]).attribute(
        torch.from_numpy(IMAGES).double(),
        torch.from_numpy(TARGETS),
        interpolate_mode="bilinear",
    )
    net.float()
    found = graph_in_float64(explainer.path, explainer.metadata)(IMAGES, TARGETS).pullback
    assert np.abs(found).max() > 0
    assert Parity.of(found, expected.detach().numpy()).relative_l2 < 1e-6


PRODUCTS = {
    "guided-gradcam": (True, ["guided", "gradcam"]),
    "excitation*layercam": (False, ["excitation", "layercam"]),
    "lrp-zplus * gradcam": (False, ["lrp-zplus", "gradcam"]),
    "gradcam*layercam": (True, ["gradcam", "layercam"]),
    "guided*input-x-gradient": (True, ["guided", "input-x-gradient"]),
    "semantic*gradcam*guided": (False, ["semantic", "gradcam", "guided"]),
}
"""For several targets or for one, and its factors."""


@pytest.mark.parametrize("method", PRODUCTS)
def test_a_product_is_that_of_its_factors(method: str, made: Make) -> None:
    """In one file that costs one forward pass."""
    several, factors = PRODUCTS[method]
    targets = [[1, 4], [3, -1]] if several else TARGETS
    files = [made(factor, multi_target=several) for factor in factors]
    pullbacks = [one(IMAGES, targets).pullback for one in files]
    explainer = made(method, multi_target=several)
    found = explainer(IMAGES, targets).pullback
    expected = np.prod(np.broadcast_arrays(*pullbacks), axis=0, dtype=np.float64)
    assert found.shape == (expected.shape if "*layercam" not in method else found.shape)
    assert Parity.of(found, expected[..., : found.shape[-3], :, :]).relative_l2 < 1e-5
    costs = [file.metadata.multiply_adds for file in files]
    backward = sum(cost["explain"] - cost["forward"] for cost in costs)
    own = explainer.metadata.multiply_adds
    assert own["explain"] - own["forward"] <= backward


def test_a_product_goes_with_the_image_with_several_layers_and_with_estimators(made: Make) -> None:
    layers = {"layer": ["z2", "z3"]}
    cams, guided = (made(*asked)(IMAGES, TARGETS).pullback for asked in (["gradcam"], ["guided"]))
    found = made("guided*gradcam", times_image=True)(IMAGES, TARGETS)
    assert Parity.of(found.pullback, cams * guided * IMAGES).relative_l2 < 1e-5
    fused = made("gradcam", **layers)(IMAGES, TARGETS).pullback
    found = made("guided*gradcam", **layers)(IMAGES, TARGETS)
    assert Parity.of(found.pullback, fused * guided).relative_l2 < 1e-5
    still = {"sigma": 0, "samples": 2}
    found = made("guided-gradcam", estimator="smoothgrad", parameters=still)(IMAGES, TARGETS)
    assert Parity.of(found.pullback, cams * guided).relative_l2 < 1e-5


def test_what_a_product_is(made: Make) -> None:
    """A map says where, and leaves what the other is; a direction times a direction is none."""
    kinds = ["direction", "direction", "relevance", "map", "product", "product"]
    for (method, (several, _)), kind in zip(PRODUCTS.items(), kinds, strict=True):
        assert made(method, multi_target=several).metadata.kind == kind
    metadata = made("lrp-zplus * gradcam", multi_target=False).metadata
    assert metadata.method == "lrp-zplus*gradcam"
    assert metadata.parameters == {"epsilon": 1e-5, "layer": "z2"}
    found = made("excitation*gradcam", parameters={"relu": 0.5}, live_temperature=True)
    assert found.metadata.replaced.keys() == {"Relu", "MaxPool"}
    assert found.metadata.parameters == {"temperature": 0.3, "relu": 0.5, "layer": "z2"}
    assert found(IMAGES, TARGETS, {"temperature": 0.2}).pullback.any()


def test_an_ascent_follows_a_direction_where_the_map_is(made: Make) -> None:
    found = onnxplain.accentuate(made("guided-gradcam", step=True), IMAGES, TARGETS, steps=2)
    assert np.abs(found.difference).max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "guided*gradcamm"}, "no method 'gradcamm'; did you mean gradcam"),
        ({"method": "guided*"}, "no method ''; choose one of"),
        ({"method": "excitation*semantic"}, "two factors of .* have temperature, and only one"),
        ({"method": "guided*gradient", "layer": "z2"}, "goes down to the image; leave out the lay"),
        ({"method": "gradcam*layercam", "step": True}, "gives a map alone"),
        ({"method": "guided*gradient", "step": True}, "products with the image or of methods, not"),
        ({"method": "gradcam*layercam", "times_image": True}, "leave it out"),
        (
            {"method": "gradcam*layercam", "estimator": "integrated-gradients"},
            "is not for class activation maps, which 'gradcam.layercam' gives",
        ),
        ({"method": "gradcam*guided", "wrt": "z2"}, "makes a map of an image"),
    ],
)
def test_what_cannot_be_is_a_sentence(source: Path, options: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        onnxplain.export(source, source.with_name("none.onnx"), **options)


HALVES = ["gradcam++", "guided-gradcam", "gradcam*layercam"]


@pytest.mark.parametrize("method", HALVES)
def test_what_is_not_linear_in_the_cotangent_is_right_in_float16(method: str, made: Make) -> None:
    """There it is scaled, but not where it is multiplied by another, or added to a number."""
    found, expected = (made(method, p)(IMAGES, TARGETS).pullback for p in ("float16", "float32"))
    assert Parity.of(found, expected).relative_l2 < 3e-2


def test_maps_of_several_layers_are_scaled_once_in_float16(made: Make) -> None:
    asked = {"layer": ["z2", "z3"]}
    halves, right = (made("gradcam", p, **asked) for p in ("float16", "float32"))
    found, expected = (each(IMAGES, TARGETS).pullback for each in (halves, right))
    assert Parity.of(found, expected).relative_l2 < 0.1
