"""Height and width left open, in the explanation too."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import onnxplain
from onnxplain.contract.explain import Metadata
from onnxplain.errors import InputError, SourceError
from onnxplain.runtime.onnx_file import read_metadata

from .graphs import head, images, node, write

SIZES = [(24, 24), (23, 33), (40, 30)]


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def noise(height: int, width: int, batch: int = 2) -> NDArray[np.float32]:
    random = np.random.default_rng(height)
    return random.standard_normal((batch, 3, height, width)).astype(np.float32)


class Odd(nn.Module):
    """Whose windows leave something over: strides of 2 and 3, dilation, ceil_mode, mean and max
    pools, a part put aside and put back, and a map resized onto another."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, 2, 3)
        self.wide = nn.Conv2d(8, 8, 3, 2, 2, dilation=2, groups=2)
        self.long = nn.Conv2d(8, 8, 3, (1, 3), 1)
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        low = torch.max_pool2d(x, 3, 2, 1)
        mean = torch.nn.functional.avg_pool2d(x, 2, ceil_mode=True)
        part = torch.nn.functional.pad(low[:, :, 1:, :-1], (1, 0, 0, 1))
        high = nn.functional.interpolate(
            self.long(low), size=x.shape[2:], mode="bilinear", align_corners=False
        )
        several = self.wide(x).amax((2, 3)), (high + x).mean((2, 3)), (mean + part).mean((2, 3))
        return self.head(torch.cat(several, 1))


@pytest.fixture(scope="module")
def odd() -> nn.Module:
    torch.manual_seed(0)
    return Odd().eval()


@pytest.fixture(scope="module")
def explained(odd: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("any") / "odd.onnx"
    example = torch.zeros(1, 3, 24, 24)
    onnxplain.export(odd, path, example=example, method="gradient", size="any")
    return path


class Adaptive(nn.Module):
    """With pools to several cells, whose windows differ by one where the sizes do not divide; and
    padded around, mirrored, rolled and cropped to its middle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.head = nn.Linear(4 * (2 * 5 + 3 + 2 * 2 + 4 + 1 + 2), 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.stem(nn.functional.pad(x, (1, 2, 2, 1), "circular")))
        x = x + x.flip(3).roll(2, 2)
        top, left = (n // 4 for n in x.shape[2:])
        x = x[:, :, top : top + x.shape[2] // 2, left:]
        grid = nn.functional.adaptive_avg_pool2d(x, (2, 5))
        rows = nn.functional.adaptive_avg_pool2d(x, (None, 3)).amax(2)
        volume = nn.functional.adaptive_avg_pool3d(x[:, :, None], (1, 2, 2))
        series = nn.functional.adaptive_avg_pool1d(x.mean(3), 4)
        column = nn.functional.adaptive_avg_pool2d(x, (None, 1)).amax(2)
        beside = nn.functional.adaptive_avg_pool2d(x.mean(3, keepdim=True), (2, None))
        parts = grid, rows, volume, series, column, beside
        return self.head(torch.cat([part.flatten(1) for part in parts], 1))


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    network, path = Adaptive().eval(), tmp_path_factory.mktemp("any") / "adaptive.onnx"
    example = torch.zeros(1, 3, 24, 24)
    onnxplain.export(network, path, example=example, method="gradient", size="any")
    return network, path


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_gradient_is_pytorchs_at_every_size(
    odd: nn.Module, explained: Path, size: tuple[int, int]
) -> None:
    is_pytorchs(odd, explained, size)


@pytest.mark.parametrize("size", [*SIZES, (71, 9)], ids=str)
def test_pools_and_moves_are_those_of_every_size(
    adaptive: tuple[nn.Module, Path], size: tuple[int, int]
) -> None:
    is_pytorchs(*adaptive, size)


@pytest.mark.parametrize("method", ["lrp-zplus", "gradcam"])
def test_a_pool_to_several_cells_is_the_layer_that_it_is_at_one_size(
    tmp_path: Path, method: str
) -> None:
    """To relevance, whose stabiliser counts once; and to a map, which looks at its cells."""
    torch.manual_seed(0)
    stem, pool, head = nn.Conv2d(3, 4, 3, 2, 1), nn.AdaptiveAvgPool2d((2, 3)), nn.Linear(24, 5)
    network = nn.Sequential(stem, nn.ReLU(), pool, nn.Flatten(), head).eval()
    x, pullbacks = np.random.default_rng(0).random((1, 3, 24, 24), np.float32), []
    given = {"method": method, "parameters": {"epsilon": 0.1} if method == "lrp-zplus" else {}}
    for size in ({}, {"size": "any"}):
        path = tmp_path / f"{len(size)}.onnx"
        onnxplain.export(network, path, example=torch.zeros(1, 3, 24, 24), **given, **size)
        pullbacks.append(onnxplain.load(path, "cpu")(x, 2).pullback)
    fixed, free = pullbacks
    np.testing.assert_allclose(free, fixed, atol=1e-5 * np.abs(fixed).max())
    assert method == "gradcam" or fixed.sum() < 0.9  # the stabiliser is felt
    assert fixed.any()


def test_the_forwards_multiply_adds_are_those_of_the_usual_size(tmp_path: Path) -> None:
    """Five windows in a row, with borders as TensorFlow has them, leave a 32nd of a side; to the
    sizes that are tried, a 29th rounds alike."""
    window = {"strides": [2, 2], "pads": [0, 0, 1, 1]}
    names = ["x", *(f"c{i}" for i in range(5))]
    nodes = [node("Conv", [x, "K"], [y], **window) for x, y in itertools.pairwise(names)]
    tail, weights = head("h", 3)
    nodes += [node("GlobalAveragePool", [names[-1]], ["h"]), *tail]
    weights["K"] = images(3, 3, 3, 3)
    source, found = write(tmp_path / "n.onnx", nodes, weights, ("N", 3, 224, 224)), []
    for size in (224, "any"):
        path = tmp_path / f"{size}.explain.onnx"
        onnxplain.export(source, path, method="gradient", size=size, check=False)
        found.append(Metadata.from_props(read_metadata(path)).multiply_adds["forward"])
    assert found[0] == found[1]


class Attending(nn.Module):
    """Tokens with position embeddings that are interpolated to their grid, and one block."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 5)
        self.positions = nn.Parameter(torch.randn(1, 8, 3, 3))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grid = self.patch(x)
        here = nn.functional.interpolate(self.positions, size=grid.shape[2:], mode="bicubic")
        tokens = (grid + here).flatten(2).mT
        return self.head((tokens + self.attention(tokens, tokens, tokens)[0]).mean(1))


def attending() -> tuple[nn.Module, dict[str, object]]:
    torch.manual_seed(0)
    return Attending().eval(), {"example": torch.zeros(1, 3, 24, 24), "size": "any"}


def test_tokens_with_interpolated_positions_are_explained_at_every_size(tmp_path: Path) -> None:
    network, options = attending()
    onnxplain.export(network, tmp_path / "x.onnx", method="gradient", **options)
    for size in ((24, 24), (40, 64), (35, 17)):
        is_pytorchs(network, tmp_path / "x.onnx", size)


def test_a_map_of_tokens_whose_places_nothing_tells_is_refused(tmp_path: Path) -> None:
    """And no map of the patches instead."""
    network, options = attending()
    with pytest.raises(SourceError, match=r"attends to tokens, and of images of any size nothing"):
        onnxplain.export(network, tmp_path / "no.onnx", method="gradcam", **options)


class Joined(nn.Module):
    """A map shrunk to a quarter, and joined with what it was made of: sides are multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 4, 4)
        self.up = nn.ConvTranspose2d(4, 3, 4, 4)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([x, self.up(torch.relu(self.down(x)))], 1)).mean((2, 3))


class Alone(Joined):
    """Whose code takes the batch for a number, and which takes any size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).repeat(len(x), 1)[:1]


class Kept(nn.Module):
    """As many places as exceed a threshold, of which the image decides."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = x[x > 0]
        return x.mean((2, 3)) if kept.shape[0] > 9 else x.amax((2, 3))


def test_a_batch_that_pytorch_cannot_open_leaves_the_sides_open(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, path = Alone().eval(), tmp_path / "alone.onnx"
    onnxplain.export(
        network, path, example=torch.zeros(1, 3, 16, 16), method="gradient", size="any"
    )
    for height, width in ((12, 20), (32, 8)):
        x = torch.from_numpy(noise(height, width, 1)).requires_grad_()
        network(x)[0, 1].backward()
        found = session(path).run(
            ["pullback"], {"image": noise(height, width, 1), "target": np.array([1])}
        )
        assert x.grad is not None
        np.testing.assert_allclose(found[0], x.grad, atol=1e-6)


def test_sizes_that_an_image_s_content_decides_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="what an image shows decides how large") as refused:
        onnxplain.export(
            Kept().eval(), tmp_path / "no.onnx", example=torch.rand(1, 3, 16, 16), size="any"
        )
    assert len(str(refused.value)) < 400


def is_pytorchs(network: nn.Module, path: Path, size: tuple[int, int]) -> None:
    x = torch.from_numpy(noise(*size)).requires_grad_()
    logits = network(x)
    logits[:, 2].sum().backward()
    assert x.grad is not None
    found = session(path).run(
        ["logits", "pullback"], {"image": noise(*size), "target": np.array([2, 2])}
    )
    np.testing.assert_allclose(found[0], logits.detach(), atol=1e-5)
    expected = x.grad.numpy()
    assert np.linalg.norm(found[1] - expected) < 1e-5 * np.linalg.norm(expected)


def test_an_adaptive_maximum_pool_of_open_size_is_refused(tmp_path: Path) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.AdaptiveMaxPool2d((2, 3)), nn.Flatten(), nn.Linear(12, 4)
    )
    with pytest.raises(
        SourceError, match=r"adaptive maximum pool to \(2, 3\) .* give a number, size=HEIGHT"
    ):
        onnxplain.export(
            network.eval(), tmp_path / "no.onnx", example=torch.zeros(1, 3, 24, 24), size="any"
        )


def test_half_precision_explains_every_size(explained: Path) -> None:
    whole, half = (
        onnxplain.load(explained, "cpu", precision)(noise(23, 33), [2, 0]).pullback
        for precision in ("float32", "float16")
    )
    assert 0 < np.linalg.norm(half - whole) < 0.01 * np.linalg.norm(whole)


def test_the_file_says_so(explained: Path) -> None:
    shapes = {x.name: x.shape for x in session(explained).get_inputs()}
    assert shapes["image"] == ["batch", 3, "height", "width"]
    pre = Metadata.from_props(read_metadata(explained)).preprocessing
    assert (pre.height, pre.width, pre.multiple) == (24, 24, 1)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("excitation", {}),
        ("excitation", {"kernels": True}),
        ("semantic", {"multi_target": True}),
        ("gradcam", {"layer": "wide"}),
        ("eigencam", {"layer": "wide"}),
        ("eigengradcam", {"layer": "wide", "multi_target": True}),
        ("scorecam", {"layer": "wide"}),
        ("scorecam", {"layer": "wide", "parameters": {"chunk": 4}}),
        ("ablationcam", {"layer": "wide"}),
        ("lrp-zplus", {}),
        ("gradient", {"estimator": "integrated-gradients", "parameters": {"steps": 2}}),
    ],
)
def test_it_is_what_a_file_of_that_size_gives(
    odd: nn.Module, method: str, options: dict[str, object], tmp_path: Path
) -> None:
    paths = {}
    for size in ("any", (23, 33)):
        paths[size] = tmp_path / f"{size}.onnx"
        example = torch.zeros(1, 3, *((24, 24) if size == "any" else size))
        kept = {"size": "any"} if size == "any" else {}
        onnxplain.export(odd, paths[size], example=example, method=method, **kept, **options)
    several = "multi_target" in options
    target = np.array([[1, 4], [0, -1]]) if several else np.array([1, 4])
    feeds = {"image": noise(23, 33), "target": target}
    free, fixed = (session(path).run(["logits", "pullback"], feeds) for path in paths.values())
    np.testing.assert_allclose(free[0], fixed[0], atol=1e-5)
    assert free[1].shape == fixed[1].shape
    assert np.linalg.norm(free[1] - fixed[1]) < 1e-5 * np.linalg.norm(fixed[1])


def test_noise_is_of_one_size(odd: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="for images of one size: give a number"):
        onnxplain.export(
            odd,
            tmp_path / "no.onnx",
            example=torch.zeros(1, 3, 24, 24),
            **{"size": "any", "estimator": "smoothgrad"},
        )


def written(network: nn.Module, path: Path, height: int = 16, width: int = 16) -> Path:
    """An ONNX file of one size."""
    torch.onnx.export(network, (torch.zeros(1, 3, height, width),), path, dynamo=True)
    return path


def test_sides_are_multiples_of_what_the_network_needs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = written(Joined().eval(), tmp_path / "joined.onnx")
    path = tmp_path / "joined.explain.onnx"
    found = onnxplain.export(source, path, method="gradient", size="any")
    assert found.preprocessing.multiple == 4
    explanation = onnxplain.load(path, "cpu")(np.zeros((13, 21, 3), np.uint8))
    assert explanation.pullback.shape == (1, 3, 12, 20)


WINDOWS = {
    "floor": [nn.Conv2d(3, 4, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 3)],
    "ceil": [nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)],
    "dilated": [nn.Conv2d(3, 4, 3, dilation=2), nn.AvgPool2d(2), nn.Conv2d(4, 4, 2, padding=1)],
}


def least_of(network: nn.Module) -> int:
    """The least side that PyTorch lets a network have."""
    for side in range(1, 40):
        with contextlib.suppress(RuntimeError):
            network(torch.zeros(1, 3, side, side))
            return side
    raise AssertionError


@pytest.mark.parametrize("kind", WINDOWS)
def test_sides_have_as_many_pixels_as_the_windows_need(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    ending = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    network, path = nn.Sequential(*WINDOWS[kind], *ending).eval(), tmp_path / "windows.onnx"
    example, least = torch.zeros(1, 3, 32, 32), least_of(network)
    found = onnxplain.export(network, path, example=example, method="gradient", size="any")
    assert found.preprocessing.least == least
    is_pytorchs(network, path, (least, 33))
    is_pytorchs(network, path, (40, least))
    explainer = onnxplain.load(path, "cpu")
    with pytest.raises(InputError, match=f"sides of {least} pixels or more"):
        explainer(np.zeros((40, least - 1, 3), np.uint8))
    with pytest.raises(InputError, match=f"its sides from {least} on"):
        explainer(np.zeros((3, least - 1, 40), np.float32))


def test_a_network_of_one_size_is_refused(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 14 * 14, 4)).eval()
    source = written(network, tmp_path / "flat.onnx")
    with pytest.raises(SourceError, match=r"images of one size alone: .*leave out size='any'"):
        onnxplain.export(source, tmp_path / "no.onnx", size="any")
    with pytest.raises(SourceError, match=r"PyTorch can't trace .* give a number, size=HEIGHT"):
        onnxplain.export(
            network, tmp_path / "no.onnx", example=torch.zeros(1, 3, 16, 16), size="any"
        )


def test_what_a_rule_cannot_is_named(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 9, opset_import: ["": 20]>
        net (float[N, 3, H, W] x) => (float[N, 3] y) <float[3, 3, 3, 3] w = {1}> {
            h = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w)
            m = GlobalAveragePool (h)
            y = Flatten (m)
        }
    """.replace("{1}", "{" + ",".join(["1"] * 81) + "}")
    )
    onnx.save(model, tmp_path / "same.onnx")
    with pytest.raises(
        SourceError, match=r"rule of Conv .*auto_pad=SAME_UPPER .*fix it with size="
    ):
        onnxplain.export(tmp_path / "same.onnx", tmp_path / "no.onnx", size="any")


def test_a_map_is_explained_over_a_region_of_the_image(tmp_path: Path) -> None:
    """A region is a grid over the image, whatever its size."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()
    path = tmp_path / "map.onnx"
    onnxplain.export(
        network,
        path,
        example=torch.zeros(1, 3, 16, 16),
        **{"size": "any", "objective": "segment", "method": "gradient"},
    )
    explainer = onnxplain.load(path, "cpu")
    region = np.zeros((8, 8))
    region[:, :4] = 1  # the left half
    x = noise(16, 24, 1)
    found = explainer(x, 1, region=region)
    image = torch.from_numpy(x).requires_grad_()
    logit = network(image)[0, 1]
    looked_at = nn.functional.interpolate(
        torch.tensor(region)[None, None], logit.shape, mode="bilinear"
    )
    ((logit * looked_at[0, 0]).sum() / looked_at.sum()).backward()
    assert image.grad is not None
    np.testing.assert_allclose(found.pullback, image.grad, atol=1e-7)
