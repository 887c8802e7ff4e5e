"""The rules of layers with weights, and zennit's composites of them: against zennit, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional
from typer.testing import CliRunner
from zennit import composites as zennits
from zennit import rules as of_zennit
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import LayerMapComposite, NameMapComposite
from zennit.core import Composite
from zennit.layer import Sum

import onnxplain
from onnxplain.cli import app
from onnxplain.contract.explain import Metadata, Preprocessing
from onnxplain.contract.request import as_asked
from onnxplain.errors import SourceError
from onnxplain.export import METHODS, pull_back
from onnxplain.export.check import Case, add_output, add_seeds, builder_of, finished
from onnxplain.export.methods.layer_rules import RULES, with_rules
from onnxplain.export.methods.weighted import Pixels
from onnxplain.reference.answers import derivation
from onnxplain.reference.float64 import evaluate, evaluate_in_float64

from .graphs import explain, head, images, node, write

RNG = np.random.default_rng(0)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def bounds() -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(v, dtype=torch.float64).reshape(1, 3, 1, 1) for v in (MEAN, STD))
    return -mean / std, (1 - mean) / std


# ----- rules -----


def layers() -> dict[str, tuple[nn.Module, tuple[int, ...], Callable[[Any], Case]]]:
    """A layer in PyTorch, the shape of what it reads, and the operator."""
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, (2, 1), 1, (1, 2), groups=2)
    transposed = nn.ConvTranspose2d(4, 3, 3, 2, 1)
    dense, tokens = nn.Linear(5, 4), nn.Linear(5, 4, bias=False)

    def weights(layer: nn.Module, transpose: bool = False) -> list[np.ndarray]:
        arrays = [p.detach().numpy().astype(np.float64) for p in layer.parameters()]
        return [arrays[0].T, *arrays[1:]] if transpose else arrays

    pads = {"pads": [1, 1, 1, 1]}
    geometry = {"strides": [2, 1], "dilations": [1, 2], "group": 2, **pads}
    return {
        "Conv": (conv, (2, 4, 7, 8), lambda x: Case("Conv", [x, *weights(conv)], geometry)),
        "ConvTranspose": (
            transposed,
            (2, 4, 4, 5),
            lambda x: Case("ConvTranspose", [x, *weights(transposed)], {"strides": [2, 2], **pads}),
        ),
        "Gemm": (dense, (3, 5), lambda x: Case("Gemm", [x, *weights(dense)], {"transB": 1})),
        "MatMul": (tokens, (2, 3, 5), lambda x: Case("MatMul", [x, *weights(tokens, True)])),
    }


LAYERS = layers()
OF_ZENNIT: dict[str, tuple[Any, dict[str, float]]] = {
    "epsilon": (of_zennit.Epsilon(0.1), {"epsilon": 0.1}),
    "z-plus": (of_zennit.ZPlus(0.1), {"stabilizer": 0.1}),
    "gamma": (of_zennit.Gamma(0.5, 0.1), {"gamma": 0.5, "stabilizer": 0.1}),
    "alpha-beta": (of_zennit.AlphaBeta(3, 2, 0.1), {"beta": 2, "stabilizer": 0.1}),
    "flat": (of_zennit.Flat(0.1), {"stabilizer": 0.1}),
    "w-square": (of_zennit.WSquare(0.1), {"stabilizer": 0.1}),
}


@pytest.mark.parametrize("sign", ["of any sign", "not negative"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("rule", OF_ZENNIT)
def test_a_rule_is_zennits(rule: str, layer: str, sign: str) -> None:
    module, shape, case = LAYERS[layer]
    theirs, parameters = OF_ZENNIT[rule]
    x = RNG.normal(size=shape)
    given = np.maximum(x, 0) if sign == "not negative" else x
    hooked = nn.Sequential(module).double()
    R = RNG.normal(size=tuple(hooked(torch.tensor(given)).shape))
    with Gradient(hooked, LayerMapComposite([(type(module), theirs)])) as attributor:
        _, expected = attributor(torch.tensor(given), torch.tensor(R))
    method = with_rules(METHODS["lrp-epsilon"], {"convolution": rule, "dense": rule})
    (found,) = pulled(case(given), R, method.rules(parameters))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-9, atol=1e-11)


def pulled(case: Case, R: np.ndarray, rules: Mapping[str, Any]) -> list[np.ndarray]:
    """The relevances of the case's active inputs, given that of its output."""
    model = case.forward_model(ir.DataType.DOUBLE)
    inputs, seeds = list(model.graph.inputs), add_seeds(model, (0,))
    found = pull_back(builder_of(model), seeds, inputs, rules)
    model.graph.outputs[:] = []
    for i, (relevance, x) in enumerate(zip(found, inputs, strict=True)):
        add_output(model, relevance, f"r{i}", like=x)
    return evaluate(finished(model), {"x0": case.arrays()[0], "g0": R})


def test_every_rule_is_compared_with_zennit() -> None:
    assert {*OF_ZENNIT, "box"} == {*RULES}


# ----- composites -----


class Network(nn.Module):
    """BatchNorms, some of whose scales are negative, pools, a residual sum, a leaky ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6)
        self.relu1, self.pool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        self.conv2, self.bn2, self.relu2 = self.block()
        self.conv3, self.bn3, self.relu3 = self.block()
        self.sum, self.conv4, self.leaky = Sum(), nn.Conv2d(6, 8, 3, groups=2), nn.LeakyReLU(0.1)
        self.average, self.fc1 = nn.AvgPool2d(2), nn.Linear(8, 10)
        self.relu4, self.fc2 = nn.ReLU(), nn.Linear(10, 5)

    @staticmethod
    def block() -> tuple[nn.Module, ...]:
        return nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu1(self.bn1(self.conv1(x))))
        y = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(x)))))
        x = self.relu3(self.sum(torch.stack([x, y], -1)))
        x = self.average(self.leaky(self.conv4(x)))
        return self.fc2(self.relu4(self.fc1(x.flatten(1))))


SAME = {"pads": [1] * 4}
NODES = [
    node("Conv", ["x", "conv1.weight", "conv1.bias"], ["c1"], name="stem", strides=[2, 2], **SAME),
    node("BatchNormalization", ["c1", *(f"bn1.{k}" for k in "sbmv")], ["n1"]),
    node("Relu", ["n1"], ["r1"]),
    node("MaxPool", ["r1"], ["p1"], kernel_shape=[3, 3], strides=[2, 2], **SAME),
    node("Conv", ["p1", "conv2.weight"], ["c2"], **SAME),
    node("BatchNormalization", ["c2", *(f"bn2.{k}" for k in "sbmv")], ["n2"]),
    node("Relu", ["n2"], ["r2"]),
    node("Conv", ["r2", "conv3.weight"], ["c3"], **SAME),
    node("BatchNormalization", ["c3", *(f"bn3.{k}" for k in "sbmv")], ["n3"]),
    node("Add", ["p1", "n3"], ["s"]),
    node("Relu", ["s"], ["r3"]),
    node("Conv", ["r3", "conv4.weight", "conv4.bias"], ["c4"], group=2),
    node("LeakyRelu", ["c4"], ["l"], alpha=0.1),
    node("AveragePool", ["l"], ["a"], kernel_shape=[2, 2], strides=[2, 2]),
    node("Flatten", ["a"], ["f"]),
    node("Gemm", ["f", "fc1.weight", "fc1.bias"], ["d1"], transB=1),
    node("Relu", ["d1"], ["r4"]),
    node("Gemm", ["r4", "fc2.weight", "fc2.bias"], ["y"], transB=1),
]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    module = Network().eval()
    with torch.no_grad():
        for norm in (module.bn1, module.bn2, module.bn3):
            norm.weight.uniform_(0.5, 1.5)[::3].mul_(-1)  # type: ignore[operator]
            norm.bias.normal_()  # type: ignore[operator]
            norm.running_mean.normal_(std=0.3)  # type: ignore[operator,union-attr]
            norm.running_var.uniform_(0.5, 2)  # type: ignore[operator,union-attr]
    return module.double()


@pytest.fixture(scope="module")
def file(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kinds = {"s": "weight", "b": "bias", "m": "running_mean", "v": "running_var"}
    state = {k: v.float().numpy() for k, v in network.state_dict().items()}
    weights = {k: v for k, v in state.items() if k.startswith(("conv", "fc"))}
    for norm in ("bn1", "bn2", "bn3"):
        weights |= {f"{norm}.{short}": state[f"{norm}.{long}"] for short, long in kinds.items()}
    path = tmp_path_factory.mktemp("lrp") / "net.onnx"
    return write(path, NODES, weights, ("N", 3, 20, 20))


X, TARGETS = images(2, 3, 20, 20), np.array([1, 4])
COMPOSITES: dict[str, Callable[..., Composite]] = {
    "epsilon-plus": zennits.EpsilonPlus,
    "lrp-epsilon-plus": zennits.EpsilonPlus,
    "lrp-epsilon-plus-flat": zennits.EpsilonPlusFlat,
    "lrp-epsilon-gamma-box": lambda **k: zennits.EpsilonGammaBox(*bounds(), **k),
    "lrp-epsilon-alpha2-beta1": zennits.EpsilonAlpha2Beta1,
    "lrp-epsilon-alpha2-beta1-flat": zennits.EpsilonAlpha2Beta1Flat,
}


def relevances_of_zennit(module: nn.Module, composite: Composite) -> np.ndarray:
    with Gradient(module, composite) as attributor:
        hot = functional.one_hot(torch.tensor(TARGETS), 5).double()
        _, found = attributor(torch.tensor(X, dtype=torch.float64), hot)
    relevances: np.ndarray = found.detach().numpy()
    return relevances


def relevances(file: Path, to: Path, **options: Any) -> np.ndarray:
    onnxplain.export(file, to, mean=MEAN, std=STD, **options)
    feeds = {"image": X, "target": TARGETS}
    return evaluate_in_float64(to, feeds, ["pullback"])["pullback"]


def assert_near(found: np.ndarray, expected: np.ndarray, bound: float = 1e-4) -> None:
    """Norms are folded in float32 in the file, and in float64 by zennit."""
    assert np.linalg.norm(found - expected) <= bound * np.linalg.norm(expected)


@pytest.mark.parametrize("method", COMPOSITES)
def test_a_composite_is_zennits(
    method: str, network: nn.Module, file: Path, tmp_path: Path
) -> None:
    composite = COMPOSITES[method](canonizers=[SequentialMergeBatchNorm()])
    expected = relevances_of_zennit(network, composite)
    assert_near(relevances(file, tmp_path / "e.onnx", method=method), expected)


def test_its_parameters_are_zennits(network: nn.Module, file: Path, tmp_path: Path) -> None:
    """`epsilon` is that of the ε rule alone, `stabilizer` of all others."""
    given = {"epsilon": 0.3, "stabilizer": 0.02, "gamma": 0.7}
    canonizers = [SequentialMergeBatchNorm()]
    composite = zennits.EpsilonGammaBox(*bounds(), **given, canonizers=canonizers)
    expected = relevances_of_zennit(network, composite)
    options = {"method": "lrp-epsilon-gamma-box", "parameters": given}
    assert_near(relevances(file, tmp_path / "e.onnx", **options), expected)


def test_methods_and_composites_are_the_same_tables(file: Path, tmp_path: Path) -> None:
    """What a method does for each kind of layer, `rules` can ask for."""
    by_name = relevances(file, tmp_path / "a", method="lrp-epsilon-gamma-box")
    rules = {"first": "box", "convolution": "gamma"}
    by_rules = relevances(file, tmp_path / "b", method="lrp-epsilon", rules=rules)
    np.testing.assert_allclose(by_rules, by_name, rtol=1e-6, atol=1e-9)


# ----- one layer -----


def test_a_layer_has_the_rule_of_its_name(network: nn.Module, file: Path, tmp_path: Path) -> None:
    """By the node's name, the weight's module, or what it puts out; a norm is part of it."""
    rules = {"stem": "w-square", "conv3": "gamma", "d1": "z-plus"}
    found = relevances(file, tmp_path / "e.onnx", method="lrp-epsilon-plus", rules=rules)
    canonizers = [SequentialMergeBatchNorm()]
    named = NameMapComposite(
        [
            (["conv1"], of_zennit.WSquare()),
            (["conv3"], of_zennit.Gamma()),
            (["fc1"], of_zennit.ZPlus()),
        ]
    )
    composite = zennits.MixedComposite([named, zennits.EpsilonPlus(canonizers=canonizers)])
    assert_near(found, relevances_of_zennit(network, composite))


def test_rules_are_noted_and_asked_for_again(file: Path, tmp_path: Path) -> None:
    rules = {"first": "box", "conv3": "alpha-beta"}
    path, given = tmp_path / "e.onnx", {"beta": 0.5, "epsilon": 0.01}
    metadata = onnxplain.export(
        file, path, method="lrp-epsilon-plus", rules=rules, parameters=given, mean=MEAN, std=STD
    )
    assert metadata.parameters == {**given, "rules": "first=box, conv3=alpha-beta"}
    assert as_asked(metadata.parameters) == {"parameters": given, "rules": rules}
    feeds = {"image": X, "target": TARGETS}
    found = evaluate_in_float64(path, feeds, ["pullback"])["pullback"]
    again = derivation(metadata, file, {}, False, X.shape[2:])(X, TARGETS).pullback
    np.testing.assert_allclose(found, again, rtol=1e-6, atol=1e-9)


def turned(folder: Path, nhwc: bool) -> Path:
    """A first layer that does not read the image itself."""
    nodes, weights = head("r", 4 * 64)
    first = [node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2])] if nhwc else []
    reads = "t" if nhwc else "x"
    first += [
        node("Sub", [reads, "shift"], ["d"]),
        node("Mul", ["d", "scale"], ["n"]),
        node("Conv", ["n", "w"], ["c"], **SAME),
        node("Relu", ["c"], ["r"]),
    ]
    weights |= {
        "shift": images(3, 1, 1, seed=3),
        "scale": -np.float32([[[2.0]], [[0.5]], [[1.0]]]),
        "w": images(4, 3, 3, 3, seed=1),
    }
    shape = ("N", 8, 8, 3) if nhwc else ("N", 3, 8, 8)
    return write(folder / "net.onnx", [*first, *nodes], weights, shape)


@pytest.mark.parametrize(("nhwc", "channels"), [(False, "rgb"), (True, "rgb"), (False, "bgr")])
def test_the_box_is_that_of_the_pixels_as_the_first_layer_reads_them(
    nhwc: bool, channels: str, tmp_path: Path
) -> None:
    """Behind a transposition, a turn of the channels, a normalisation that turns the ends round."""
    source, path = turned(tmp_path, nhwc), tmp_path / "e.onnx"
    options: dict[str, Any] = {"channels": channels, "mean": MEAN, "std": STD}
    onnxplain.export(source, path, method="lrp-epsilon-gamma-box", **options)
    x = images(2, 3, 8, 8, seed=5)
    image = np.moveaxis(x, 1, -1) if nhwc else x
    found = evaluate_in_float64(path, {"image": image, "target": [1, 2]}, ["pullback"])["pullback"]
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(source).graph.initializer}
    w, W, shift, scale = (torch.tensor(weights[n]).double() for n in ("w", "W", "shift", "scale"))

    def read(pixels: Tensor) -> Tensor:
        pixels = pixels.flip(1) if channels == "bgr" else pixels
        return (pixels - shift) * scale

    low, high = map(read, bounds())
    given, ends = read(torch.tensor(x).double()), (torch.minimum(low, high), low.maximum(high))
    conv = nn.Conv2d(3, 4, 3, padding=1, bias=False).double()
    conv.weight.data = w
    dense = nn.Linear(256, 4, bias=False).double()
    dense.weight.data = W.T
    network = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), dense)
    with Gradient(network, zennits.EpsilonGammaBox(*ends)) as attributor:
        _, R = attributor(given, functional.one_hot(torch.tensor([1, 2]), 4).double())
    shifted = given / scale
    R = R * (shifted + shift) / stabilised(shifted)  # a constant's share is a bias's
    expected = (R.flip(1) if channels == "bgr" else R).numpy()
    found = np.moveaxis(found, -1, 1) if nhwc else found
    assert_near(found, expected)


def stabilised(z: Tensor) -> Tensor:
    return z + 1e-6 * torch.where(z < 0, -1.0, 1.0)


# ----- what cannot be -----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gradient", "rules": {"first": "flat"}}, "'gradient' has no rules of layers"),
        ({"rules": {"first": "flatt"}}, "no rule 'flatt'; did you mean flat\\? There are epsilon"),
        (
            {"rules": {"conv9": "flat"}},
            "no convolution or dense layer is called 'conv9', or stands",
        ),
        ({"rules": {"conv3": "box"}}, "rule box is for the first layers, which read pixels, and"),
        ({"parameters": {"gamma": 0.1}}, "no gamma; leave it out"),
        (
            {"rules": {"conv3": "gamma"}, "parameters": {"gamma": -1}},
            r"gamma must be .* \[0, 1e\+06\]",
        ),
        ({"parameters": {"stabilizer": 0}}, "stabilizer must be a positive number, not 0"),
    ],
)
def test_rules_that_cannot_be(
    options: dict[str, Any], message: str, file: Path, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=message):
        onnxplain.export(file, tmp_path / "e.onnx", **{"method": "lrp-epsilon-plus", **options})


def test_a_box_needs_pixels(file: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="box needs an image, whose pixels have bounds"):
        onnxplain.export(file, tmp_path / "e.onnx", method="lrp-epsilon-gamma-box", wrt="r1")


def test_the_command_takes_rules(file: Path, tmp_path: Path) -> None:
    runner, path = CliRunner(), tmp_path / "e.onnx"
    given = ["export", str(file), "-o", str(path), "--method", "lrp-epsilon"]
    shown = runner.invoke(app, [*given, "--rule", "first=flat", "--rule", "conv3=gamma"])
    assert shown.exit_code == 0
    props = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert Metadata.from_props(props).parameters["rules"] == "first=flat, conv3=gamma"
    wrong = runner.invoke(app, [*given, "--rule", "flat"])
    assert wrong.exit_code != 0
    assert "WHERE=RULE" in wrong.output


# ----- conservation -----


def test_what_arrives_at_the_pixels_is_told(file: Path, tmp_path: Path) -> None:
    found = explain(file, X, "lrp-epsilon-plus")
    np.testing.assert_allclose(found.relevance_sum, found.pullback.sum((1, 2, 3)), rtol=1e-4)
    assert found[1:].relevance_sum.shape == (1,)


def test_pixels_are_normalised_by_channel() -> None:
    pre = Preprocessing(8, 8, 8, MEAN, STD)
    pixels = Pixels.of(pre)
    np.testing.assert_allclose(pixels.low.ravel(), [-2, -2, -2])
    np.testing.assert_allclose(pixels.high.ravel(), [3, 2, 4 / 3])
