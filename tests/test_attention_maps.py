"""Maps of a transformer's attention: the papers' formulas on PyTorch's own attention."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import VisionTransformer

import onnxplain
from onnxplain.errors import SourceError
from onnxplain.reference.parity import Parity

from .small_transformers import IMAGES, SIZE, TARGETS, Transformer, made


def rollout(attention: list[Tensor], _: list[Tensor]) -> Tensor:
    """Abnar & Zuidema 2020, section 3: R ← (Ā + I)/2 · R, rows adding up to 1."""
    R = torch.eye(7).double()
    for A in attention:
        mixed = (A.mean(1) + torch.eye(7)) / 2
        R = mixed / mixed.sum(-1, keepdim=True) @ R
    return R


def attribution(attention: list[Tensor], gradients: list[Tensor]) -> Tensor:
    """Chefer et al. 2021 (arXiv 2103.15679), Eqs. 5 and 6: R ← R + mean over heads (∇A ⊙ A)⁺ R."""
    R = torch.eye(7).double()
    for A, g in zip(attention, gradients, strict=True):
        R = R + (g * A).relu().mean(1) @ R
    return R


FORMULAS = {"attention-rollout": rollout, "transformer-attribution": attribution}


def softmax_seen(attention: list[Tensor], patched: pytest.MonkeyPatch) -> None:
    """Have every layer put down what softmax gave in it."""

    def attend(q: Tensor, k: Tensor, v: Tensor, *_: Any, **_others: Any) -> Tensor:
        attention.append(torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1))
        return attention[-1] @ v

    patched.setattr(functional, "scaled_dot_product_attention", attend)


def by_hand(
    module: Transformer, method: str, targets: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> np.ndarray:
    """In float64, of what softmax gave in every layer."""
    attention: list[Tensor] = []
    with monkeypatch.context() as patched:
        softmax_seen(attention, patched)
        logits = module.double()(torch.tensor(IMAGES).double())
    score = logits.gather(1, torch.tensor(targets)[:, None]).sum()
    gradients = torch.autograd.grad(score, attention)
    module.float()
    R = FORMULAS[method]([A.detach() for A in attention], [*gradients])
    low = R[:, 0, 1:].reshape(-1, 1, 2, 3)
    return functional.interpolate(low, SIZE, mode="bilinear").numpy()


@pytest.mark.parametrize("method", FORMULAS)
def test_a_map_is_its_formula(method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module, path = made(), tmp_path / "x.onnx"
    metadata = onnxplain.export(module, path, size=SIZE, method=method)
    assert metadata.notes[-1] == (
        "the map is of 2 layers of attention, 2 × 3 tokens and 1 beside them, as token 0 of 7 sees "
        "them"
    )
    found = onnxplain.load(path, "cpu")(IMAGES, TARGETS).pullback
    expected = by_hand(module, method, TARGETS, monkeypatch)
    assert Parity.of(found, expected).relative_l2 <= 1e-5
    assert onnxplain.verify(path, module, provider="cpu").passed
    cost = metadata.multiply_adds["explain"] / metadata.multiply_adds["forward"]
    assert cost <= (1.1 if method == "attention-rollout" else 2)


@pytest.mark.parametrize("method", FORMULAS)
def test_several_targets_from_one_forward(
    method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module, path = made(), tmp_path / "x.onnx"
    onnxplain.export(module, path, size=SIZE, method=method, multi_target=True)
    found = onnxplain.load(path, "cpu")(IMAGES, [[0, 4, 0], [3, 4, 1]]).pullback
    assert found.shape == (2, 3, 1, *SIZE)
    for k, targets in enumerate([TARGETS, np.array([4, 4])]):
        expected = by_hand(module, method, targets, monkeypatch)
        assert Parity.of(found[:, k], expected).relative_l2 <= 1e-5


# ----- each layer by itself -----


def timms(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    size = {"img_size": 64, "depth": 3, "num_classes": 10}
    module = timm.create_model(name, pretrained=False, **size, **options)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)
    return module.eval()


def torchvisions() -> nn.Module:
    torch.manual_seed(0)
    module = VisionTransformer(64, 16, 3, 4, 32, 48, num_classes=10)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


def head_of_timms(module: Any, z: Tensor) -> Tensor:
    return module.forward_head(module.norm(z))


def head_of_torchvisions(module: Any, z: Tensor) -> Tensor:
    return module.heads(module.encoder.ln(z)[:, 0])


LAYERS: dict[str, tuple[Callable[[], nn.Module], str, Callable[[Any, Tensor], Tensor], int]] = {
    "torchvision": (torchvisions, "encoder.layers", head_of_torchvisions, 1),
    "class token": (
        partial(timms, "deit3_small_patch16_224", embed_dim=48, num_heads=3), "blocks",
        head_of_timms, 1,
    ),
    "registers, mean of patches": (
        partial(timms, "vit_small_patch16_224", embed_dim=48, num_heads=1, reg_tokens=2,
                global_pool="avg"),
        "blocks", head_of_timms, 3,
    ),
    "pooled by attention": (
        partial(timms, "vit_base_patch16_siglip_224", embed_dim=48, num_heads=3), "blocks",
        head_of_timms, 0,
    ),
}  # fmt: skip
"""The network, where its blocks are, what its head makes of a block's tokens, and how many of these
are no patches."""


def legrad(
    name: str, module: nn.Module, images: Tensor, targets: Tensor, monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    """Bousselham et al. 2024 (arXiv 2404.03214): s_l = head(tokens of layer l),
    E = 1/L Σ_l mean over heads and queries of ReLU(∂s_l/∂A_l); in float64."""
    _, blocks, head, beside = LAYERS[name]
    attention: list[Tensor] = []
    tokens: list[Tensor] = []
    layers = list(module.get_submodule(blocks).children())
    hooks = [one.register_forward_hook(lambda *given: tokens.append(given[-1])) for one in layers]
    total = torch.zeros(())
    with monkeypatch.context() as patched:
        softmax_seen(attention, patched)
        module.double()(images.double())
        own = attention[: len(layers)]
        for z, A in zip(tokens, own, strict=True):
            attention.clear()
            score = head(module, z).gather(1, targets[:, None]).sum()
            (g,) = torch.autograd.grad(score, attention or A, retain_graph=True)
            total = total + g.relu().mean((1, 2)) / len(layers)
    for hook in hooks:
        hook.remove()
    module.float()
    low = total[:, beside:].reshape(-1, 1, 4, 4)
    return functional.interpolate(low, (64, 64), mode="bilinear")


@pytest.mark.parametrize("name", LAYERS)
def test_legrad_is_what_each_layers_tokens_would_gain(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = LAYERS[name][0]()
    images, targets = torch.randn(2, 3, 64, 64), torch.tensor([[3, 0], [5, 5]])
    made = onnxplain.export(
        module, tmp_path / "x.onnx", size=64, method="legrad", multi_target=True
    )
    found = onnxplain.load(tmp_path / "x.onnx", "cpu")(images.numpy(), targets.numpy()).pullback
    for k in range(2):
        expected = legrad(name, module, images, targets[:, k], monkeypatch)
        assert expected.max() > 0
        assert Parity.of(found[:, k], expected.numpy()).relative_l2 <= 1e-5
    assert ("the head's attention" in made.notes[-1]) == (name == "pooled by attention")
    assert made.multiply_adds["explain"] <= 2 * 2 * made.multiply_adds["forward"]


def test_legrad_in_one_file_and_verified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module, path = torchvisions(), tmp_path / "x.onnx"
    onnxplain.export(module, path, size=64, method="legrad*input-x-gradient")
    images = torch.randn(2, 3, 64, 64, requires_grad=True)
    logits = module(images)
    targets = logits.argmax(1)
    (g,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), images)
    given = images.detach()
    expected = legrad("torchvision", module, given, targets, monkeypatch) * g * given
    found = onnxplain.load(path, "cpu")(given.numpy()).pullback
    assert Parity.of(found, expected.numpy()).relative_l2 <= 1e-5
    assert onnxplain.verify(path, module, provider="cpu").passed


def test_legrad_needs_a_classifiers_head(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a classifier's head score the tokens of each layer"):
        onnxplain.export(
            made(), tmp_path / "x.onnx", size=SIZE, method="legrad", objective="embedding"
        )


# ----- other attention, in files: one head, blocks of attention alone -----

ATTENTION = """
    q = MatMul (queries, wq)
    k = MatMul (keys, wk)
    v = MatMul (keys, wv)
    turned = Transpose <perm = [0, 2, 1]> (k)
    scores = MatMul (q, turned)
    attention = Softmax <axis = -1> (scores)
    read = MatMul (attention, v)
"""
PLAIN = re.sub("queries|keys", "tokens", ATTENTION)
WINDOWED = (
    "rows = Reshape (tokens, windows)"
    + re.sub("queries|keys", "rows", ATTENTION).replace("read", "each")
    + "read = Reshape (each, back)"
)

BESIDE = (
    PLAIN.replace("read", "one")
    + re.sub(r"\b(q|k|v|turned|scores|attention|read)\b", r"\1_2", PLAIN).replace("wk", "wv")
    + "read = Add (one, read_2)"
)


def file(path: Path, block: str) -> Path:
    """Patches of 8 × 8 of images of 16 × 24, six tokens, a block that makes `read` of `tokens`, the
    mean over tokens."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 20]>
        small (float[N, 3, 16, 24] image) => (float[N, 5] logits)
        <int64[3] flat = {{0, 6, -1}}, int64[3] windows = {{-1, 3, 6}},
         int64[3] back = {{-1, 6, 6}}, int64[4] pairs = {{0, 3, 2, 6}},
         int64[1] first = {{1}}, int64[1] second = {{2}}>
        {{
            patches = Conv <kernel_shape = [8, 8], strides = [8, 8]> (image, weights)
            flattened = Reshape (patches, flat)
            tokens = Transpose <perm = [0, 2, 1]> (flattened)
            {block}
            sum = Add (tokens, read)
            active = Tanh (sum)
            mean = ReduceMean <keepdims = 0> (active, first)
            logits = MatMul (mean, head)
        }}
    """)
    random = np.random.default_rng(0)
    shapes = {"weights": (6, 3, 8, 8), "head": (6, 5), **dict.fromkeys(["wq", "wk", "wv"], (6, 6))}
    for name, shape in shapes.items():
        array = random.normal(scale=0.3, size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, path)
    return path


def test_where_all_tokens_are_read_the_map_is_the_mean_of_what_they_saw(tmp_path: Path) -> None:
    path = file(tmp_path / "net.onnx", PLAIN)
    metadata = onnxplain.export(path, tmp_path / "x.onnx", method="attention-rollout")
    assert metadata.notes[-1].endswith("2 × 3 tokens, as tokens 0 to 5 of 6 see them")
    found = onnxplain.load(tmp_path / "x.onnx", "cpu")(IMAGES, TARGETS).pullback
    model = onnx.load(path)
    model.graph.output.append(onnx.ValueInfoProto(name="attention"))
    _, A = ReferenceEvaluator(model).run(None, {"image": IMAGES})
    low = torch.tensor(((A + np.eye(6)) / 2).mean(1).reshape(-1, 1, 2, 3))
    expected = functional.interpolate(low, SIZE, mode="bilinear").numpy()
    assert Parity.of(found, expected).relative_l2 <= 1e-5


@pytest.mark.parametrize("method", ["transformer-attribution", "legrad"])
def test_attention_without_an_axis_of_heads(method: str, tmp_path: Path) -> None:
    """[N, T, T]: several targets' gradients have four axes, and none of these is of heads."""
    path, several = file(tmp_path / "net.onnx", PLAIN), tmp_path / "several.onnx"
    onnxplain.export(path, tmp_path / "x.onnx", method=method)
    onnxplain.export(path, several, method=method, multi_target=True)
    one, targets = onnxplain.load(tmp_path / "x.onnx", "cpu"), [[0, 4], [3, 1]]
    found = onnxplain.load(several, "cpu")(IMAGES, targets).pullback
    for k in range(2):
        expected = one(IMAGES, [row[k] for row in targets]).pullback
        assert Parity.of(found[:, k], expected).relative_l2 <= 1e-6


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (WINDOWED, r"\[.*,3,3\], within windows or parts of the image"),
        (BESIDE, "some are beside each other, not one after the other"),
        (
            "split = Reshape (tokens, pairs)\nkeys = ReduceMean <keepdims = 0> (split, second)"
            + ATTENTION.replace("queries", "tokens"),
            r"\[.*,6,3\], not from each token to each",
        ),
        ("read = Sigmoid (tokens)", r"the network has none \(no Softmax whose rows weigh values\)"),
    ],
)
def test_other_attention_is_refused_in_a_sentence(block: str, why: str, tmp_path: Path) -> None:
    path = file(tmp_path / "net.onnx", block)
    said = f"attention-rollout multiplies the attention of all layers, and .*{why}; choose another"
    with pytest.raises(SourceError, match=said):
        onnxplain.export(path, tmp_path / "x.onnx", method="attention-rollout")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"layer": "norm"}, "takes every layer of attention; leave out the layer"),
        ({"times_image": True}, "times_image is for an explanation of the image itself"),
        ({"step": True}, "an ascent needs a pullback of the image"),
        ({"estimator": "integrated-gradients"}, "is not for class activation maps"),
    ],
)
def test_options_that_are_not_of_a_map_of_attention(
    options: dict[str, Any], why: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=why):
        onnxplain.export(
            made(), tmp_path / "x.onnx", size=SIZE, method="transformer-attribution", **options
        )
