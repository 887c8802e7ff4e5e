"""Class activation maps: against autograd by hand, against pytorch-grad-cam, at any layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction
from torch.nn import functional
from typer.testing import CliRunner

import onnxplain
from onnxplain.cli.app import app
from onnxplain.contract.request import as_asked
from onnxplain.errors import BackendError, InputError, SourceError
from onnxplain.export.sources.source import torch_network
from onnxplain.reference.parity import Parity
from onnxplain.runtime.inputs.batches import as_batch

Tensor = torch.Tensor


def plus_plus(A: Tensor, g: Tensor) -> Tensor:
    alpha = torch.where(g != 0, 1 / (2 + g * A.sum((2, 3), keepdim=True)), 0)
    return ((alpha * g.clamp(min=0)).sum((2, 3), keepdim=True) * A).sum(1, keepdim=True)


def x_grad(A: Tensor, g: Tensor) -> Tensor:
    total = A.sum((2, 3), keepdim=True)
    weights = (g * A / torch.where(total == 0, 1, total)).sum((2, 3), keepdim=True)
    return (weights * A).sum(1, keepdim=True)


def projected(X: Tensor) -> Tensor:
    """pytorch-grad-cam's own, with the sign that is not left to the decomposition."""
    return torch.tensor(get_2d_projection_with_sign_correction(X.numpy()))[:, None].double()


FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": lambda A, g: (g.mean((2, 3), keepdim=True) * A).sum(1, keepdim=True),
    "gradcam++": plus_plus,
    "xgradcam": x_grad,
    "layercam": lambda A, g: (g.relu() * A).sum(1, keepdim=True),
    "hirescam": lambda A, g: (g * A).sum(1, keepdim=True),
    "eigencam": lambda A, g: projected(A),
    "eigengradcam": lambda A, g: projected(g * A),
}
PEERS = {
    "gradcam": GradCAM,
    "gradcam++": GradCAMPlusPlus,
    "xgradcam": XGradCAM,
    "layercam": LayerCAM,
    "hirescam": HiResCAM,
}


class Net(torch.nn.Module):
    """Convolutions with batch norms, a ReLU used twice and in place, a classifier on the mean."""

    def __init__(self, classes: int = 6) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.block = torch.nn.Sequential(
            torch.nn.Conv2d(8, 12, 3, stride=2, padding=1), torch.nn.BatchNorm2d(12)
        )
        self.relu = torch.nn.ReLU(inplace=True)
        self.head = torch.nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.block(self.relu(self.stem(x))))
        return self.head(
            torch.tanh(x).mean((2, 3))
        )  # tanh: the gradient differs from place to place


class ChannelsLast(torch.nn.Module):
    """As Swin: the last feature map is [N, h, w, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.norm = torch.nn.LayerNorm(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.net.block(self.net.stem(x)).permute(0, 2, 3, 1)
        return self.net.head(torch.tanh(self.norm(x)).mean((1, 2)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    made = Net()
    made.block[1].running_mean.uniform_(-0.2, 0.2)
    made.block[1].running_var.uniform_(0.02, 0.1)
    torch.nn.init.normal_(made.head.weight)
    return made.eval()


def by_hand(
    module: torch.nn.Module, layer: str, images: np.ndarray, targets: np.ndarray, method: str
) -> np.ndarray:
    """The formula on PyTorch's own activations and gradient, in float64."""
    module, kept = module.double(), []

    def keep(_: object, __: object, output: Tensor) -> Tensor:
        kept[:] = [output]
        return output.clone()  # what works in place on it leaves the kept one alone

    hook = dict(module.named_modules())[layer].register_forward_hook(keep)
    logits = module(torch.tensor(images).double())
    hook.remove()
    score = logits.gather(1, torch.tensor(targets)[:, None]).sum()
    (g,) = torch.autograd.grad(score, kept[-1])
    A = kept[-1].detach()
    if isinstance(module, ChannelsLast) and layer == "norm":
        A, g = A.permute(0, 3, 1, 2), g.permute(0, 3, 1, 2)
    low = FORMULAS[method](A, g).relu()
    module.float()
    assert low.amax((1, 2, 3)).any()
    return functional.interpolate(low, images.shape[2:], mode="bilinear").numpy()


def noise(height: int, width: int, batch: int = 3) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, 3, height, width)).astype(np.float32)


@pytest.mark.parametrize("layer", ["stem", "block", "block.0", "relu"])
@pytest.mark.parametrize("method", FORMULAS)
def test_a_map_is_its_formula(method: str, layer: str, net: Net, tmp_path: Path) -> None:
    """Also at a convolution whose batch norm would be folded into it, and where the next
    operation works in place; of a layer that is called twice the last call counts."""
    path, images, targets = tmp_path / "cam.onnx", noise(32, 40), np.array([1, 5, 0])
    metadata = onnxplain.export(net, path, size=(32, 40), method=method, layer=layer)
    assert metadata.parameters == {"layer": layer}
    found = onnxplain.load(path)(images, targets).pullback
    assert found.shape == (3, 1, 32, 40)
    assert found.dtype == np.float32
    assert found.min() >= 0
    parity = Parity.of(found, by_hand(net, layer, images, targets, method))
    near_a_pole = method == "gradcam++"  # before a ReLU, where activations are negative
    assert parity.relative_l2 <= (1e-4 if near_a_pole else 1e-5)


def test_the_layer_is_the_last_with_height_and_width_and_the_sweep_stops_there(
    net: Net, tmp_path: Path
) -> None:
    onnxplain.export(net, tmp_path / "cam.onnx", size=32, method="gradcam")
    last = onnxplain.load(tmp_path / "cam.onnx")
    assert "tanh" in str(last.metadata.parameters["layer"])
    resnet = torch_network("resnet18", "none", (64, 64))
    metadata = onnxplain.export(
        "resnet18", tmp_path / "cam.onnx", weights="none", size=64, method="gradcam"
    )
    assert metadata.parameters == {"layer": "layer4.1.relu"}  # the last ReLU, before the pooling
    cost = metadata.multiply_adds
    assert cost["explain"] <= 1.01 * cost["forward"]
    operators = [node.op_type for node in onnx.load(tmp_path / "cam.onnx").graph.node]
    assert operators.count("Conv") == 20  # the forward's: none of them is pulled back
    assert "ConvTranspose" not in operators
    images, targets = noise(64, 64, 2), np.array([3, 7])
    parity = Parity.of(
        onnxplain.load(tmp_path / "cam.onnx")(images, targets).pullback,
        by_hand(resnet.module, "layer4.1.relu", images, targets, "gradcam"),
    )
    assert parity.relative_l2 <= 1e-4


class Pooled(torch.nn.Module):
    """The last map is made inside a module, which puts out its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = torch.nn.Conv2d(3, 5, 3), Mean()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x))


class Mean(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x).mean((2, 3))


def test_a_layer_is_named_by_the_module_that_puts_it_out_and_by_no_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Pooled().eval(), tmp_path / "cam.onnx"
    metadata = onnxplain.export(module, path, size=24, method="gradcam")
    assert metadata.parameters["layer"] != "head"
    assert onnxplain.verify(path, module, provider="cpu").passed


def test_a_map_of_channels_last(net: Net, tmp_path: Path) -> None:
    module, path, images = ChannelsLast().eval(), tmp_path / "cam.onnx", noise(32, 48)
    module.net = net
    onnxplain.export(module, path, size=(32, 48), method="hirescam", layer="norm")
    targets = np.array([1, 5, 0])
    parity = Parity.of(
        onnxplain.load(path)(images, targets).pullback,
        by_hand(module, "norm", images, targets, "hirescam"),
    )
    assert parity.relative_l2 <= 1e-5


@pytest.mark.parametrize("method", FORMULAS)
def test_k_targets_from_one_forward_equal_k_runs(method: str, net: Net, tmp_path: Path) -> None:
    several, one, images = tmp_path / "several.onnx", tmp_path / "one.onnx", noise(32, 40, 2)
    onnxplain.export(net, several, size=(32, 40), method=method, multi_target=True)
    onnxplain.export(net, one, size=(32, 40), method=method)
    found = onnxplain.load(several)(images, [[0, -1, 5], [2, 2, -2]])
    assert found.pullback.shape == (2, 3, 1, 32, 40)
    single = onnxplain.load(one)
    for k in range(3):
        alone = single(images, found.targets[:, k]).pullback
        np.testing.assert_allclose(found.pullback[:, k], alone, rtol=1e-4, atol=1e-7)


def channels_last_file(path: Path) -> None:
    """As tf2onnx writes them: the image is [N, H, W, C], the layers are [N, C, h, w]."""
    rng = np.random.default_rng(0)
    weights = {
        "K": rng.standard_normal((5, 3, 3, 3)).astype(np.float32),
        "W": rng.standard_normal((5, 4)).astype(np.float32),
        "axes": np.array([2, 3]),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "K"], ["c"], strides=[2, 2], name="the_conv"),
        helper.make_node("Relu", ["c"], ["r"], name="the_relu"),
        helper.make_node("Sigmoid", ["r"], ["s"], name="the_sigmoid"),
        helper.make_node("ReduceMean", ["s", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "W"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "nhwc",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 20, 24, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)


def test_an_onnx_file_names_its_layers_by_values_and_nodes(tmp_path: Path) -> None:
    channels_last_file(tmp_path / "net.onnx")
    found = {}
    for layer in ("r", "the_relu", None):
        onnxplain.export(tmp_path / "net.onnx", tmp_path / "x", method="layercam", layer=layer)
        found[layer] = onnxplain.load(tmp_path / "x")(noise(20, 24).transpose(0, 2, 3, 1)).pullback
    np.testing.assert_array_equal(found["r"], found["the_relu"])
    assert not np.allclose(found["r"], found[None])
    output = onnx.load(tmp_path / "x").graph.output[1]
    shape = [d.dim_value or d.dim_param for d in output.type.tensor_type.shape.dim]
    assert shape[1:] == [20, 24, 1]  # the image's own layout
    assert found["r"].shape == (3, 1, 20, 24)  # and channels first in Python


def test_a_layer_whose_name_has_a_comma_is_one_layer(tmp_path: Path) -> None:
    """ONNX lets values have any name; several layers are noted with commas between."""
    channels_last_file(tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    model.graph.node[2].output[0] = model.graph.node[3].input[0] = "r, of c"
    onnx.save(model, tmp_path / "net.onnx")
    layers = ["r, of c", "c"]
    onnxplain.export(tmp_path / "net.onnx", tmp_path / "x", method="layercam", layer=layers)
    metadata = onnxplain.load(tmp_path / "x").metadata
    assert as_asked(metadata.parameters)["layer"] == layers
    assert onnxplain.verify(tmp_path / "x", tmp_path / "net.onnx").passed


def test_a_file_of_pytorchs_exporter_knows_its_modules(net: Net, tmp_path: Path) -> None:
    file, path, images = tmp_path / "net.onnx", tmp_path / "cam.onnx", noise(32, 32)
    torch.onnx.export(net, (torch.tensor(images),), file, opset_version=20, verbose=False)
    onnxplain.export(file, path, method="gradcam", layer="block")
    targets = np.array([1, 5, 0])
    parity = Parity.of(
        onnxplain.load(path)(images, targets).pullback,
        by_hand(net, "block", images, targets, "gradcam"),
    )
    assert parity.relative_l2 <= 1e-5


# ----- pytorch-grad-cam -----


def agrees_with_pytorch_grad_cam(
    name: str, weights: str, layer: str, method: str, images: list[np.ndarray], path: Path
) -> None:
    """Up to the scaling of each image's map to [0, 1] that pytorch-grad-cam does."""
    onnxplain.export(name, path, method=method, weights=weights, layer=layer)
    network = torch_network(name, weights)
    batch, _ = as_batch(images, network.preprocessing)
    explanation = onnxplain.load(path)(batch)
    layers = [dict(network.module.named_modules())[layer]]
    with PEERS[method](model=network.module, target_layers=layers) as cam:
        targets = [ClassifierOutputTarget(int(target)) for target in explanation.targets]
        expected = cam(input_tensor=torch.tensor(batch), targets=targets)
    for ours, theirs in zip(explanation.pullback[:, 0], expected, strict=True):
        scaled = ours - ours.min()
        parity = Parity.of(scaled / scaled.max(), theirs)
        assert parity.cosine >= 0.9999
        assert parity.max_abs <= 1e-3


ALIKE = [method for method in PEERS if method != "gradcam++"]
"""The peer's gradcam++ adds 1e-6 to what it divides by, g² and more, which in trained networks is
less than that: it agrees where g is large."""


@pytest.mark.parametrize("method", ["gradcam++", "xgradcam"])
def test_weights_are_pytorch_grad_cams_where_gradients_are_large(method: str) -> None:
    random = np.random.default_rng(0)
    A, g = random.uniform(size=(2, 5, 4, 3)), random.normal(size=(2, 5, 4, 3))
    weights = PEERS[method].get_cam_weights(None, None, None, None, A, g)
    expected = (weights[:, :, None, None] * A).sum(1, keepdims=True)
    found = FORMULAS[method](torch.tensor(A), torch.tensor(g)).numpy()
    assert Parity.of(found, expected).relative_l2 <= 1e-4


@pytest.mark.parametrize(
    "method",
    ["gradcam", *(pytest.param(m, marks=pytest.mark.sweep) for m in ALIKE if m != "gradcam")],
)
def test_efficientnet_agrees_with_pytorch_grad_cam(
    method: str, photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    images = list(photographs.values())
    agrees_with_pytorch_grad_cam(
        "efficientnet-lite0", "DEFAULT", "_bn1", method, images, tmp_path / "x.onnx"
    )


@pytest.mark.sweep
@pytest.mark.parametrize("method", ALIKE)
@pytest.mark.parametrize(
    ("name", "layer"), [("resnet50", "layer4.2"), ("densenet121", "features.denseblock4")]
)
def test_torchvisions_networks_agree_with_pytorch_grad_cam(
    name: str, layer: str, method: str, photographs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    images = list(photographs.values())
    agrees_with_pytorch_grad_cam(name, "none", layer, method, images, tmp_path / "x.onnx")


@pytest.mark.sweep
def test_a_layer_is_seen_before_what_works_on_it_in_place(tmp_path: Path) -> None:
    """pytorch-grad-cam takes DenseNet's norm5 as the ReLU after it, in place, has left it."""
    path, layer = tmp_path / "x.onnx", "features.norm5"
    module = torch_network("densenet121", "none", (64, 64)).module
    options = {"weights": "none", "size": 64, "layer": layer}
    onnxplain.export("densenet121", path, method="gradcam", **options)
    images, targets = noise(64, 64), np.array([1, 5, 0])
    expected = by_hand(module, layer, images, targets, "gradcam")
    parity = Parity.of(onnxplain.load(path)(images, targets).pullback, expected)
    assert parity.relative_l2 <= 1e-4


def test_several_layers_give_the_mean_of_their_scaled_maps(net: Net, tmp_path: Path) -> None:
    """Also of several targets; pytorch-grad-cam scales the mean again."""
    net.relu.inplace = False
    path, layers, images = tmp_path / "x.onnx", ["stem", "block"], noise(32, 40)
    options: dict[str, Any] = {"size": (32, 40), "method": "layercam", "layer": layers}
    metadata = onnxplain.export(net, path, **options)
    assert metadata.parameters == {"layer": "stem, block"}
    found = onnxplain.load(path)(images, [1, 5, 0]).pullback
    with LayerCAM(net, [net.stem, net.block]) as cam:
        expected = cam(torch.tensor(images), [ClassifierOutputTarget(k) for k in (1, 5, 0)])
    scaled = found - found.min((1, 2, 3), keepdims=True)
    scaled /= scaled.max((1, 2, 3), keepdims=True)
    assert Parity.of(scaled[:, 0], expected).relative_l2 <= 1e-4
    assert onnxplain.verify(path, net, provider="cpu").passed
    onnxplain.export(net, path, multi_target=True, **options)
    both = onnxplain.load(path)(images, [[1, 2], [5, 2], [0, 2]]).pullback
    np.testing.assert_allclose(both[:, 0], found, rtol=1e-4, atol=1e-6)


# ----- what cannot be -----


class Tokens(torch.nn.Module):
    """As a vision transformer: patches, then everything else on tokens, here mixed by weights."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = torch.nn.Conv2d(3, 8, 8, stride=8)
        self.mixed = torch.nn.Linear(16, 16)
        self.mlp = torch.nn.Sequential(torch.nn.Linear(8, 512), torch.nn.Linear(512, 8))
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.mixed(self.patch_embed(x).flatten(2)).mT
        return self.head((tokens + self.mlp(tokens)).mean(1))


def test_tokens_that_are_of_no_place_have_no_map(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"'patch_embed' .*tokens of which the graph does not"):
        onnxplain.export(Tokens(), tmp_path / "x.onnx", size=32, method="gradcam")
    onnxplain.export(Tokens(), tmp_path / "x", size=32, method="gradcam", layer="patch_embed")
    said = r"\[.*16,8\], and not .*all of it is of one part of the image; .*: patch_embed \["
    with pytest.raises(SourceError, match=said):
        onnxplain.export(Tokens(), tmp_path / "x.onnx", size=32, method="gradcam", layer="mlp")


def test_an_unknown_layer_suggests_the_nearest(net: Net, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no layer 'blok'; did you mean block"):
        onnxplain.export(net, tmp_path / "x.onnx", size=32, method="gradcam", layer="blok")
    channels_last_file(tmp_path / "net.onnx")
    with pytest.raises(SourceError, match=r"no layer 'the_rely'; did you mean the_relu"):
        onnxplain.export(tmp_path / "net.onnx", tmp_path / "x", method="gradcam", layer="the_rely")


def test_options_that_make_no_sense_together(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    with pytest.raises(SourceError, match="'gradient' goes down to the image; leave out the layer"):
        onnxplain.export(net, path, size=32, method="gradient", layer="block")
    with pytest.raises(SourceError, match="an ascent needs a pullback of the image"):
        onnxplain.export(net, path, size=32, method="gradcam", step=True)
    with pytest.raises(SourceError, match="no temperature"):
        onnxplain.export(net, path, size=32, method="gradcam", temperature=1.0)


# ----- what becomes of it -----


@pytest.fixture
def cam(net: Net, tmp_path: Path) -> Path:
    path = tmp_path / "cam.explain.onnx"
    onnxplain.export(net, path, size=64, method="gradcam", labels=[f"class {i}" for i in range(6)])
    return path


def test_a_map_is_seen(cam: Path, photographs: dict[str, np.ndarray], tmp_path: Path) -> None:
    explanation = onnxplain.load(cam)(list(photographs.values()))
    assert explanation.pullback.shape == (3, 1, 64, 64)
    heat = explanation.heatmap()
    assert heat.shape == (3, 64, 64)
    assert heat.max() == 1
    for style in ("pullback", "heatmap", "overlay", "grid"):
        explanation.save(tmp_path / "why.png", style=style)
        assert Image.open(tmp_path / "why.png").size[0] >= 64
    assert explanation._repr_html_().count("<img") == 9


def test_a_map_is_no_direction_in_which_to_change_an_image(
    cam: Path, photographs: dict[str, np.ndarray], photo_folder: Path, tmp_path: Path
) -> None:
    explainer = onnxplain.load(cam)
    with pytest.raises(InputError, match="gradcam gives class activation maps, not a direction"):
        onnxplain.accentuate(explainer, photographs["coffee"])
    from onnxplain.web.site import write_site

    with pytest.raises(BackendError, match="gives class activation maps"):
        write_site(cam, tmp_path / "site")
    report = ["report", str(cam), str(photo_folder), "-o", str(tmp_path / "r.html")]
    result = CliRunner().invoke(app, report)
    assert result.exit_code == InputError.exit_code
    assert "gives class activation maps" in result.output
    assert not (tmp_path / "r.html").exists()


def test_info_says_which_layer_and_how_many_channels(cam: Path) -> None:
    result = CliRunner().invoke(app, ["info", str(cam)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "gradcam, layer tanh" in result.output
    assert "pullback [N, 1, 64, 64]" in result.output
    assert "image float32 [N, 3, 64, 64]" in result.output


def test_the_command_takes_a_layer(tmp_path: Path) -> None:
    channels_last_file(tmp_path / "net.onnx")
    out = tmp_path / "x.onnx"
    arguments = ["export", str(tmp_path / "net.onnx"), "-o", str(out), "--method", "gradcam"]
    result = CliRunner().invoke(app, [*arguments, "--layer", "the_relu"])
    assert result.exit_code == 0, result.output
    assert "gradcam, layer the_relu" in result.output
    result = CliRunner().invoke(app, [*arguments, "--layer", "the_conv", "--layer", "the_relu"])
    assert result.exit_code == 0, result.output
    assert "gradcam, layer the_conv, the_relu" in " ".join(result.output.split())
