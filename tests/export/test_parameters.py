"""The parameters of methods: declared with their ranges, set one by one, noted in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import onnxplain
from onnxplain.contract.explain import Metadata
from onnxplain.errors import BackendError, InputError, SourceError
from onnxplain.export import METHODS, Method, Parameter
from onnxplain.reference.answers import compare
from onnxplain.reference.pytorch import explain

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((2, 3, 16, 16)).astype(np.float32)
TARGETS = np.array([1, 3])


class Gates(nn.Module):
    """ReLU, GELU, SiLU and MaxPool, one of each."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(i, 6, 3, padding=1) for i in (3, 6, 6))
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.convs
        x = self.pool(torch.relu(a(x)))
        x = nn.functional.silu(c(nn.functional.gelu(b(x))))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """One head over pixels, linear but for its weights, which go through a mask's Where."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(3, 12)
        self.head = nn.Linear(4, 5)

    def weights(self, x: Tensor, T: float = 1.0) -> tuple[Tensor, Tensor]:
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).split(4, -1)
        return (q @ k.transpose(1, 2) / T).softmax(-1), v

    def forward(self, x: Tensor) -> Tensor:
        w, v = self.weights(x)
        return self.head((0.5 * w @ v).mean(1))

    def pullback(self, x: Tensor, target: int, T: float) -> Tensor:
        """The gradient through the values alone, by the weights softmax(A / T)."""
        x = x.clone().requires_grad_()
        w, v = self.weights(x, T)
        self.head((0.5 * w.detach() @ v).mean(1))[:, target].sum().backward()
        assert x.grad is not None
        return x.grad


def module(kind: type[nn.Module]) -> Any:
    torch.manual_seed(3)
    return kind().eval()


def pullback(kind: type[nn.Module], path: Path, T: float | None = None, **options: Any) -> Any:
    onnxplain.export(module(kind), path, size=16, **options)
    return onnxplain.load(path, threads=1)(IMAGES, TARGETS, T).pullback


class Heads(nn.Module):
    """nn.MultiheadAttention, and attention whole, with a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.heads = nn.Linear(3, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = 3 * self.into(x[:, :, ::4, ::4].flatten(2).transpose(1, 2))
        x = x + self.heads(x, x, x, need_weights=False)[0]
        q, k, v = (3 * self.qkv(x)).split(8, -1)
        mask = torch.linspace(0, 1, x.shape[1], dtype=x.dtype)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, mask.expand(len(mask), -1))
        return self.head(attended.mean(1))


@pytest.mark.parametrize(
    ("network", "method", "given"),
    [
        (Gates, "excitation", {"relu": 0.5}),
        (Gates, "excitation", {"max_pool": 0.9, "temperature": 0.5}),
        (Gates, "semantic", {"relu": 0.5, "max_pool": 0.5}),
        (Gates, "semantic", {"gelu": 2.0, "silu": 0.4, "temperature": 1.5}),
        (Attention, "semantic", {"attention": 2.5, "temperature": 3.0}),
        (Heads, "semantic", {"attention": 2.5}),
    ],
)
def test_each_temperature_is_the_references(
    network: type[nn.Module], method: str, given: dict[str, float], tmp_path: Path
) -> None:
    path = tmp_path / "e.onnx"
    metadata = onnxplain.export(module(network), path, size=16, method=method, parameters=given)
    assert given.items() <= metadata.parameters.items()
    parity = compare(onnxplain.load(path, threads=1), module(network), IMAGES, TARGETS)
    assert parity["pullback"].relative_l2 <= 1e-5


def test_excitations_temperature_is_that_of_all_that_have_none_of_their_own(tmp_path: Path) -> None:
    of = {"method": "excitation"}
    both = pullback(Gates, tmp_path / "a", parameters={"relu": 0.7, "max_pool": 0.7}, **of)
    np.testing.assert_allclose(both, pullback(Gates, tmp_path / "b", temperature=0.7, **of))
    live = pullback(
        Gates, tmp_path / "c", 0.7, parameters={"relu": 0.5}, live_temperature=True, **of
    )
    baked = pullback(Gates, tmp_path / "d", temperature=0.7, parameters={"relu": 0.5}, **of)
    np.testing.assert_allclose(live, baked, rtol=1e-5, atol=1e-7)
    assert not np.allclose(both, baked)


def test_semantics_temperature_is_a_factor_on_the_others_but_attentions(tmp_path: Path) -> None:
    of: dict[str, Any] = {"method": "semantic"}
    doubled = {"relu": 1.0, "gelu": 2.0, "silu": 3.2, "max_pool": 0.6}
    expected = pullback(Gates, tmp_path / "a", parameters=doubled, **of)
    own = {"parameters": {"relu": 0.5}, **of}
    baked = pullback(Gates, tmp_path / "b", temperature=2.0, **own)
    live = pullback(Gates, tmp_path / "c", 2.0, live_temperature=True, **own)
    np.testing.assert_allclose(baked, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(live, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("network", "method", "given"),
    [
        (Gates, "excitation", {"relu": 0.7, "max_pool": 0.2}),
        (Gates, "semantic", {"relu": 1.1, "gelu": 0.5, "silu": 0.9, "max_pool": 0.4}),
        (Attention, "semantic", {"attention": 2.5}),
    ],
)
def test_each_temperature_can_be_an_input_by_itself(
    network: type[nn.Module], method: str, given: dict[str, float], tmp_path: Path
) -> None:
    onnxplain.export(module(network), tmp_path / "e", size=16, method=method, live=list(given))
    explainer = onnxplain.load(tmp_path / "e", threads=1)
    assert explainer.backend.signature.live == tuple(given)
    found = explainer(IMAGES, TARGETS, given).pullback
    exact = module(network).double(), torch.from_numpy(IMAGES).double()
    _, wanted = explain(*exact, torch.from_numpy(TARGETS), method, **given)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert not np.allclose(explainer(IMAGES, TARGETS).pullback, wanted)
    with pytest.raises(InputError, match="'temperature' is a constant of this graph"):
        explainer(IMAGES, TARGETS, 0.5)
    name = next(iter(given))
    with pytest.raises(InputError, match=f"'{name}' must be a positive number"):
        explainer(IMAGES, TARGETS, {name: 0.0})


def test_a_live_temperature_and_its_rules_go_together(tmp_path: Path) -> None:
    of: dict[str, Any] = {"size": 16, "method": "semantic"}
    onnxplain.export(module(Gates), tmp_path / "a", live_temperature=True, live=["relu"], **of)
    onnxplain.export(module(Gates), tmp_path / "b", temperature=2.0, parameters={"relu": 0.5}, **of)
    live, baked = (onnxplain.load(tmp_path / name, threads=1) for name in ("a", "b"))
    found = live(IMAGES, TARGETS, {"temperature": 2.0, "relu": 0.5}).pullback
    np.testing.assert_allclose(found, baked(IMAGES, TARGETS).pullback, rtol=1e-4, atol=1e-6)
    with pytest.raises(SourceError, match="has no warmth"):
        onnxplain.export(module(Gates), tmp_path / "c", live=["warmth"], **of)


@pytest.mark.parametrize("T", [1.0, 2.5])
def test_attentions_weights_are_softened_backward_alone(T: float, tmp_path: Path) -> None:
    path = tmp_path / "e.onnx"
    onnxplain.export(
        module(Attention), path, size=16, method="semantic", temperature=3.0,
        parameters={"attention": T},
    )  # fmt: skip
    found = onnxplain.load(path, threads=1)(IMAGES, [2, 2])
    x, network = torch.from_numpy(IMAGES), module(Attention)
    np.testing.assert_allclose(found.logits, network(x).detach(), rtol=1e-4, atol=1e-6)
    expected = network.pullback(x, 2, T).numpy()
    np.testing.assert_allclose(found.pullback, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", ["lrp-zplus", "lrp-epsilon", "epsilon-plus"])
def test_the_stabiliser_of_relevances_is_settable_and_noted(method: str, tmp_path: Path) -> None:
    path = tmp_path / "e.onnx"
    given = {"epsilon": 0.25}
    metadata = onnxplain.export(module(Gates), path, size=16, method=method, parameters=given)
    assert metadata.described_method == f"{method}, epsilon 0.25"
    parity = compare(onnxplain.load(path, threads=1), module(Gates), IMAGES, TARGETS)
    assert parity["pullback"].relative_l2 <= 1e-5


def test_the_file_names_the_first_parameter_and_those_that_are_not_their_default() -> None:
    semantic = METHODS["semantic"]
    assert semantic.noted(semantic.values({})) == {"temperature": 1.0}
    values = semantic.values({"relu": 0.6, "attention": 2.0})
    assert semantic.noted(values) == {"temperature": 1.0, "attention": 2.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": {"relu": 0.0}}, "relu must be a positive number, not 0.0"),
        ({"parameters": {"relu": float("inf")}}, "positive number, not inf"),
        ({"temperature": -0.3}, "^temperature must be a positive number, not -0.3"),
        ({"parameters": {"gelu": 1.0}}, r"no gelu; leave it out \(it has temperature, relu, max_p"),
        ({"parameters": {"temperature": 1.0}, "temperature": 1.0}, "given twice"),
        ({"method": "gradient", "parameters": {"epsilon": 1.0}}, "no epsilon; leave it out$"),
        ({"method": "lrp-zplus", "parameters": {"epsilon": -1.0}}, "epsilon must be a positive"),
    ],
)
def test_a_parameter_that_cannot_be(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        onnxplain.export(module(Gates), tmp_path / "e.onnx", size=16, **options)


def test_a_range_holds_its_ends_where_it_is_closed() -> None:
    share = Parameter("share", 0.5, "of something", low=0.0, high=1.0, closed=True)
    assert [share.checked(value) for value in (0, 1)] == [0.0, 1.0]
    with pytest.raises(SourceError, match=r"^share must be a finite number in \[0, 1\], not 2"):
        share.checked(2)
    with pytest.raises(SourceError, match="not True"):
        share.checked(True)
    with pytest.raises(SourceError, match="has no mood"):
        Method("x", parameters=(share,)).values({"mood": 1.0})


def rectifier(folder: Path) -> Path:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 20]>
        rectifier (float[N, 3, 16, 16] image) => (float[N, 3] logits) {
            rectified = Relu(image)
            means = GlobalAveragePool(rectified)
            logits = Flatten(means)
        }"""
    )
    onnx.save(model, folder / "rectifier.onnx")
    return folder / "rectifier.onnx"


def test_a_live_parameter_has_the_range_that_its_method_declares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaky(op: Any, node: Any, g: Any, *, slope: Any) -> Any:
        return [op.Mul(g, slope)]

    slope = Parameter("slope", -0.5, "of every ReLU", low=-1.0, high=0.0, closed=True)
    monkeypatch.setitem(METHODS, "leaky", Method("leaky", {"Relu": leaky}, (slope,)))
    path = tmp_path / "leaky.onnx"
    metadata = onnxplain.export(rectifier(tmp_path), path, method="leaky", live=["slope"])
    explainer = onnxplain.load(path, threads=1)
    assert explainer.metadata == metadata
    targets = np.array([1, 2])
    flat, steep = (explainer(IMAGES, targets, {"slope": value}).pullback for value in (0, -1.0))
    assert not flat.any()
    assert steep.sum() == pytest.approx(-2)
    for wrong in (0.5, -2, "steep"):
        with pytest.raises(InputError, match=r"'slope' must be a finite number in \[-1, 0\], not"):
            explainer(IMAGES, targets, {"slope": wrong})


def test_a_product_with_the_image_is_no_direction(tmp_path: Path) -> None:
    """And is taken once: no method gives it twice."""
    from onnxplain.web.site import write_site

    network = rectifier(tmp_path)
    for method in ("input-x-gradient", "lrp-zplus"):
        with pytest.raises(SourceError, match="already counts the image in: leave out times_image"):
            onnxplain.export(network, tmp_path / "x.onnx", method=method, times_image=True)
    with pytest.raises(SourceError, match="products with the image or of methods, not a direction"):
        onnxplain.export(network, tmp_path / "x.onnx", method="input-x-gradient", step=True)
    for options, otherwise in (
        ({"method": "input-x-gradient"}, "with another method"),
        ({"times_image": True, "live_temperature": True}, "without times_image"),
    ):
        path = tmp_path / "product.onnx"
        metadata = onnxplain.export(network, path, **options)
        assert metadata.kind == "product"
        reason = f"gives products with the image or .*, not a direction .*; export {otherwise}"
        with pytest.raises(InputError, match=reason):
            onnxplain.accentuate(onnxplain.load(path), IMAGES, TARGETS)
        with pytest.raises(BackendError, match=reason):
            write_site(path, tmp_path / "site")
    older = {key: value for key, value in metadata.to_props().items() if key != "onnxplain.kind"}
    older["onnxplain.method"] = "input-x-gradient"
    assert Metadata.from_props(older).kind == "product"
