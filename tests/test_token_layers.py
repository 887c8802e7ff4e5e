"""Activation maps of tokens: the graph tells where in the image they are, and no user has to."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from timm.models.coat import CoaT
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional

import onnxplain
from onnxplain.errors import SourceError
from onnxplain.export.sources.source import torch_network
from onnxplain.reference.parity import Parity
from onnxplain.runtime.cache import cache_folder

from .test_cams import ALIKE, PEERS, noise
from .traces import once

Tensor = torch.Tensor
SIZE = 32, 48


def with_registers() -> torch.nn.Module:
    """As DINOv2: a class token, two registers, 4 × 6 patches; the class token alone is read."""
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=SIZE, patch_size=8, depth=2, embed_dim=16, num_heads=2, num_classes=5, reg_tokens=2
    ).eval()


def swin() -> torch.nn.Module:
    """8 × 12 patches in windows of 4 × 4, which the second block shifts; then 4 × 6 of them."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"depths": (2, 1), "num_heads": (2, 2), "window_size": 4}
    return SwinTransformer(img_size=SIZE, patch_size=4, embed_dim=8, num_classes=5, **sizes).eval()


NETWORKS = {"registers": with_registers, "swin": swin}


def file_of(name: str) -> Path:
    """The network as PyTorch's exporter writes it, which notes its modules."""

    def write(path: Path) -> None:
        torch.onnx.export(
            NETWORKS[name](),
            (torch.zeros(2, 3, *SIZE),),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=20,
            external_data=False,
            verbose=False,
        )

    return once(cache_folder("made") / f"tokens-{name}.onnx", write)


def without_first(count: int, rows: int) -> Callable[[Tensor], Tensor]:
    """pytorch-grad-cam's reshape_transform for ViT."""

    def transform(x: Tensor) -> Tensor:
        return x[:, count:].unflatten(1, (rows, -1)).permute(0, 3, 1, 2)

    return transform


def channels_first(x: Tensor) -> Tensor:
    """pytorch-grad-cam's reshape_transform for Swin."""
    return x.permute(0, 3, 1, 2)


def unshifted(x: Tensor) -> Tensor:
    """Windows [N · 6, 16, C] put back where they were, and the shift by two undone."""
    x = x.reshape(-1, 2, 3, 4, 4, x.shape[-1]).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(len(x), -1, 8, 12).roll((2, 2), (2, 3))


def of_pytorch_grad_cam(
    method: str,
    module: torch.nn.Module,
    layer: str,
    transform: Callable[[Tensor], Tensor],
    images: np.ndarray,
    targets: list[int],
) -> np.ndarray:
    """In float64, before it scales each image's map to [0, 1]."""
    at, x = [dict(module.named_modules())[layer]], torch.tensor(images).double()
    classes = [ClassifierOutputTarget(target) for target in targets]
    with PEERS[method](module.double(), at, reshape_transform=transform) as cam:
        cam(x, classes)
        kept = cam.activations_and_grads
        A, g = kept.activations[-1].numpy(), kept.gradients[-1].numpy()
        low = torch.tensor(cam.get_cam_image(x, at[0], classes, A, g, False)).relu()
    module.float()
    assert low.amax((1, 2)).all()
    return functional.interpolate(low[:, None], images.shape[2:], mode="bilinear").numpy()


LAYERS: list[tuple[str, str, Callable[[Tensor], Tensor]]] = [
    ("registers", "blocks.1.norm1", without_first(3, 4)),
    ("registers", "blocks.0", without_first(3, 4)),
    ("swin", "layers.0.blocks.1.norm1", channels_first),
    ("swin", "layers.0.blocks.1.attn", unshifted),
    ("swin", "layers.1.blocks.0.norm1", channels_first),
]


@pytest.mark.parametrize(("name", "layer", "transform"), LAYERS)
def test_a_map_of_tokens_is_pytorch_grad_cams(
    name: str, layer: str, transform: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    module, path, images, targets = NETWORKS[name](), tmp_path / "x.onnx", noise(*SIZE), [1, 4, 0]
    for method in ALIKE if layer == "blocks.1.norm1" else ALIKE[:1]:
        onnxplain.export(file_of(name), path, method=method, layer=layer)
        found = onnxplain.load(path)(images, targets).pullback
        expected = of_pytorch_grad_cam(method, module, layer, transform, images, targets)
        assert Parity.of(found, expected).relative_l2 <= 1e-4


def test_by_default_it_is_the_last_layer_whose_tokens_are_read(tmp_path: Path) -> None:
    """Of a class token that is read alone, the norm before the last block's attention."""
    source, path = file_of("registers"), tmp_path / "x.onnx"
    metadata = onnxplain.export(source, path, method="gradcam")
    assert metadata.parameters == {"layer": "blocks.1.norm1"}
    (note,) = (note for note in metadata.notes if "the map is of" in note)
    assert note.endswith("blocks.1.norm1 [batch,27,16], 4 × 6 tokens and 3 beside them")
    assert onnxplain.verify(path, source, provider="cpu").passed
    with pytest.raises(SourceError, match=r"'blocks\.1' has 4 × 6 tokens and 3 .*0 everywhere"):
        onnxplain.export(source, path, method="gradcam", layer="blocks.1")


def test_behind_the_last_map_it_is_the_tokens_that_attended(tmp_path: Path) -> None:
    """Of CoaT's last stage, of a small share of its work, not the map that it begins with."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"embed_dims": (16,) * 4, "mlp_ratios": (2,) * 4, "patch_size": 4}
    depths: dict[str, Any] = {"serial_depths": (1, 1, 1, 2), "parallel_depth": 0}
    module = CoaT(img_size=64, num_heads=8, num_classes=5, **sizes, **depths).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    path, images, targets = tmp_path / "x.onnx", noise(64, 64), [1, 4, 0]
    metadata = onnxplain.export(module, path, size=64, method="gradcam")
    layer = metadata.parameters["layer"]
    assert layer == "serial_blocks4.0"
    assert metadata.notes[-1].endswith("2 × 2 tokens and 1 beside them")
    found = onnxplain.load(path)(images, targets).pullback
    transform = without_first(1, 2)
    expected = of_pytorch_grad_cam("gradcam", module, layer, transform, images, targets)
    assert Parity.of(found, expected).relative_l2 <= 1e-4


def test_several_targets_of_tokens_are_each_alone(tmp_path: Path) -> None:
    options: dict[str, Any] = {"method": "layercam", "layer": "layers.0.blocks.1.attn"}
    onnxplain.export(file_of("swin"), tmp_path / "x", **options)
    one = onnxplain.load(tmp_path / "x")
    onnxplain.export(file_of("swin"), tmp_path / "x", multi_target=True, **options)
    found = onnxplain.load(tmp_path / "x")(noise(*SIZE, 2), [[0, 3], [1, 2]]).pullback
    for k, targets in enumerate(([0, 1], [3, 2])):
        alone = one(noise(*SIZE, 2), targets).pullback
        np.testing.assert_allclose(found[:, k], alone, rtol=1e-4, atol=1e-7)


REAL: list[tuple[str, str, Callable[[Tensor], Tensor]]] = [
    ("vit_b_16", "encoder.layers.encoder_layer_11.ln_1", without_first(1, 14)),
    ("swin_t", "features.7.1.norm1", channels_first),
    ("timm/deit_tiny_distilled_patch16_224", "blocks.11.norm1", without_first(2, 14)),
    ("timm/vit_small_patch14_reg4_dinov2", "blocks.11.norm1", without_first(5, 37)),
    ("timm/vit_base_patch16_siglip_224", "norm", without_first(0, 14)),
]


@pytest.mark.sweep
@pytest.mark.parametrize(("name", "layer", "transform"), REAL)
def test_real_transformers_agree_with_pytorch_grad_cam(
    name: str, layer: str, transform: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network, path = torch_network(name, "none"), tmp_path / "x.onnx"
    size = network.preprocessing.height, network.preprocessing.width
    for weight in network.module.parameters():
        if not weight.any():  # as torchvision's untrained heads are
            torch.nn.init.normal_(weight, std=0.02)
    onnxplain.export(network.module, path, size=size, method="gradcam", layer=layer)
    images = noise(*size, 1)
    expected = of_pytorch_grad_cam("gradcam", network.module, layer, transform, images, [7])
    found = onnxplain.load(path)(images, [7]).pullback
    assert Parity.of(found, expected).relative_l2 <= 1e-4


# ----- by hand: the same activations at the same places, in other orders -----

TOKENS = """
    <ir_version: 10, opset_import: ["": 20]>
    tokens (float[N, 3, 8, 12] image) => (float[N, 4] logits)
    <int64[6] cells = {0, 3, 2, 4, 3, 4}, int64[3] flat = {0, 6, 48},
     int64[6] shuffle = {5, 2, 0, 1, 4, 3}, int64[4] windowed = {0, 2, 3, 5},
     int64[3] window = {-1, 2, 5}, int64[2] rows = {-1, 5}, int64[4] back = {-1, 3, 2, 5},
     int64[2] one = {1, 1}>
    {
        cut = Reshape (image, cells)
        turned = Transpose <perm = [0, 2, 4, 1, 3, 5]> (cut)
        patches = Reshape (turned, flat)
        embedded = MatMul (patches, weights)
        tokens = Tanh (embedded)
        n = Shape <start = 0, end = 1> (image)
        n11 = Concat <axis = 0> (n, one)
        class = Expand (learned, n11)
        joined = Concat <axis = 1> (class, tokens)
        with_class = Identity (joined)
        begin = Constant <value_ints = [1]> ()
        end = Constant <value_ints = [7]> ()
        axis = Constant <value_ints = [1]> ()
        patches_alone = Slice (with_class, begin, end, axis)
        shuffled = Gather <axis = 1> (patches_alone, shuffle)
        unshuffled = Gather <axis = 1> (shuffled, inverse)
        sequence_first = Transpose <perm = [1, 0, 2]> (unshuffled)
        batch_first = Transpose <perm = [1, 0, 2]> (sequence_first)
        grid = Reshape (batch_first, windowed)
        columns = Transpose <perm = [0, 2, 1, 3]> (grid)
        windows = Reshape (columns, window)
        channels_first = Transpose <perm = [0, 2, 1]> (windows)
        channels_last = Transpose <perm = [0, 2, 1]> (channels_first)
        split = Reshape (channels_last, back)
        joined_again = Transpose <perm = [0, 2, 1, 3]> (split)
        squares = Mul (joined_again, joined_again)
        axes = Constant <value_ints = [1, 2]> ()
        mean = ReduceMean <keepdims = 0> (squares, axes)
        logits = MatMul (mean, head)
    }
"""


def tokens_file(path: Path) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"weights": (48, 5), "learned": (1, 1, 5), "head": (5, 4)}
    weights = {name: random.normal(size=shape) for name, shape in shapes.items()}
    arrays: dict[str, np.ndarray] = {n: w.astype(np.float32) for n, w in weights.items()}
    arrays["inverse"] = np.argsort([5, 2, 0, 1, 4, 3])
    model = onnx.parser.parse_model(TOKENS)
    for name, array in arrays.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, path)
    return weights


ORDERS = [
    *("tokens", "with_class", "shuffled", "sequence_first", "grid", "columns", "windows"),
    *("channels_first", "squares"),
]


@pytest.mark.parametrize("layer", ORDERS)
def test_tokens_are_put_in_the_images_order(layer: str, tmp_path: Path) -> None:
    """Patches cut by Reshape and Transpose, a class token, a shuffle, [T, N, D], windows that share
    the batch's axis, [N · 2, D, T]."""
    weights = tokens_file(tmp_path / "net.onnx")
    onnxplain.export(tmp_path / "net.onnx", tmp_path / "x", method="hirescam", layer=layer)
    images, targets = noise(8, 12), np.array([0, 3, 1])
    cells = images.reshape(3, 3, 2, 4, 3, 4).transpose(0, 2, 4, 1, 3, 5).reshape(3, 6, 48)
    A = np.tanh(cells @ weights["weights"])
    gain = weights["head"][:, targets].T[:, None] / 6
    low = (A**2 * gain * (1 if layer == "squares" else 2)).sum(-1).reshape(3, 1, 2, 3)
    expected = functional.interpolate(torch.tensor(low).relu(), (8, 12), mode="bilinear")
    found = onnxplain.load(tmp_path / "x")(images, targets).pullback
    assert Parity.of(found, expected.numpy()).relative_l2 <= 1e-5


POOLED = """
    <ir_version: 10, opset_import: ["": 20]>
    pooled (float[N, 3, 8, 12] image) => (float[N, 4] logits)
    <int64[3] flat = {0, 6, -1}, int64[4] heads = {0, 6, 2, 3}, int64[2] all = {-1, 6}>
    {
        patches = Conv <kernel_shape = [4, 4], strides = [4, 4]> (image, weights)
        flattened = Reshape (patches, turned)
        tokens = Transpose <perm = [0, 2, 1]> (flattened)
        wide = MatMul (tokens, up)
        mlp = MatMul (wide, down)
        sum = Add (tokens, mlp)
        normed = LayerNormalization (sum, scale)
        kv = MatMul (normed, both)
        k, v = Split <axis = 2, num_outputs = 2> (kv)
        k_heads = Reshape (k, heads)
        keys = Transpose <perm = [0, 2, 3, 1]> (k_heads)
        v_heads = Reshape (v, heads)
        values = Transpose <perm = [0, 2, 1, 3]> (v_heads)
        scores = MatMul (query, keys)
        attention = Softmax <axis = -1> (scores)
        read = MatMul (attention, values)
        turned_back = Transpose <perm = [0, 2, 1, 3]> (read)
        joined = Reshape (turned_back, all)
        logits = MatMul (joined, head)
    }
"""


def test_heads_that_are_read_by_one_query_are_no_map(tmp_path: Path) -> None:
    """As SigLIP's: [N, 1, heads, D] has four axes too; the tokens are those of the last norm."""
    random, model = np.random.default_rng(0), onnx.parser.parse_model(POOLED)
    shapes = {"weights": (6, 3, 4, 4), "scale": (6,), "both": (6, 12), "head": (6, 4)}
    shapes |= {"up": (6, 80), "down": (80, 6)}
    for name, shape in {**shapes, "query": (1, 2, 1, 3)}.items():
        array = random.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    turned = onnx.numpy_helper.from_array(np.array([0, 6, 6]), "turned")
    model.graph.initializer.append(turned)
    onnx.save(model, tmp_path / "net.onnx")
    metadata = onnxplain.export(tmp_path / "net.onnx", tmp_path / "x", method="gradcam")
    assert metadata.parameters == {"layer": "normed"}
    with pytest.raises(SourceError, match=r"'turned_back' is .*1,2,3\], and not .*one part"):
        onnxplain.export(
            tmp_path / "net.onnx", tmp_path / "x", method="gradcam", layer="turned_back"
        )


def test_the_recipe_of_the_page_runs(tmp_path: Path) -> None:
    page = Path(__file__).parent.parent / "docs" / "maps.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    tokens_file(tmp_path / "net.onnx")
    given = {"network": tmp_path / "net.onnx", "image": None, "photograph": noise(8, 12, 1)}
    with contextlib.chdir(tmp_path):
        exec(block, given)
    assert (tmp_path / "where.png").stat().st_size > 100
