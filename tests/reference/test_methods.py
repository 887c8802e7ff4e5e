"""The PyTorch reference: its rules in closed form, and that it leaves the network as it is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from onnxplain.errors import InputError
from onnxplain.reference.parity import Parity
from onnxplain.reference.pytorch import PULLBACKS, explain, resolve_targets

T = 0.3


class Sandwich(nn.Module):
    """logits = above · activation(image): the rule meets above[c] as class c's cotangent."""

    def __init__(self, activation: Callable[[Tensor], Tensor], above: Tensor) -> None:
        super().__init__()
        self.activation = activation
        self.above = above
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        return self.activation(image).flatten(1) @ self.above.T


def draw(*shape: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return scale * torch.randn(*shape, dtype=torch.float64, generator=generator)


def pull(activation: Callable[[Tensor], Tensor], z: Tensor, g: Tensor, method: str) -> Tensor:
    """What the cotangent g [1, n] of activation(z) becomes at z, of shape [1, …]."""
    return explain(Sandwich(activation, g), z, torch.tensor([0]), method, T)[1]


Z, G = draw(1, 3, 4, 4, scale=4), draw(1, 48)
GRID = G.reshape(Z.shape)

RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU(inplace)": nn.ReLU(inplace=True),
    "F.relu": functional.relu,
    "F.relu(inplace)": lambda x: functional.relu(x, inplace=True),
    "F.relu_": functional.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: x.relu_(),
    "Tensor.clamp(min=0)": lambda x: x.clamp(min=0),
}
RELU6S: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6(inplace)": nn.ReLU6(inplace=True),
    "nn.Hardtanh": nn.Hardtanh(0.0, 6.0),
    "F.relu6": functional.relu6,
    "F.relu6(inplace)": lambda x: functional.relu6(x, inplace=True),
    "F.hardtanh": lambda x: functional.hardtanh(x, 0, 6),
    "F.hardtanh_": lambda x: functional.hardtanh_(x, 0.0, 6.0),
    "torch.clamp": lambda x: torch.clamp(x, 0, 6),
    "torch.clip": lambda x: torch.clip(x, min=0, max=6),
    "Tensor.clamp_": lambda x: x.clamp_(0, 6),
}


QUOTIENTS = {"attn-lrp", "cp-lrp"}
"""Methods whose activations pass f(x)/x."""


class TestRelu:
    def test_relu_gate_counts_negative_preactivations(self) -> None:
        z = torch.tensor([[-0.3, 0.0, 0.3, 3.0]], dtype=torch.float64)
        g = torch.tensor([[1.0, 1.0, -1.0, 2.0]], dtype=torch.float64)
        e = 2.718281828459045
        expected = torch.tensor([[1 / (1 + e), 0.5, -e / (1 + e), 2 / (1 + e**-10)]])
        torch.testing.assert_close(pull(nn.ReLU(), z, g, "excitation"), expected.double())

    @pytest.mark.parametrize("spelling", RELUS)
    def test_excitation_gates_every_spelling_of_relu(self, spelling: str) -> None:
        pullback = pull(RELUS[spelling], Z, G, "excitation")
        torch.testing.assert_close(pullback, GRID * torch.sigmoid(Z / T))

    @pytest.mark.parametrize("spelling", RELU6S)
    def test_excitation_gates_relu6_without_an_upper_cut(self, spelling: str) -> None:
        assert (Z > 6).any()
        pullback = pull(RELU6S[spelling], Z, G, "excitation")
        torch.testing.assert_close(pullback, GRID * torch.sigmoid(Z / T))

    @pytest.mark.parametrize("spelling", RELUS)
    def test_guided_wants_both_signs_positive(self, spelling: str) -> None:
        expected = GRID * (Z > 0) * (GRID > 0)
        torch.testing.assert_close(pull(RELUS[spelling], Z, G, "guided"), expected)

    @pytest.mark.parametrize("spelling", RELU6S)
    def test_guided_keeps_the_upper_cut_of_relu6(self, spelling: str) -> None:
        expected = GRID * (Z > 0) * (Z < 6) * (GRID > 0)
        torch.testing.assert_close(pull(RELU6S[spelling], Z, G, "guided"), expected)

    @pytest.mark.parametrize("spelling", [*RELUS, *RELU6S])
    def test_deconvnet_looks_at_the_cotangent_alone(self, spelling: str) -> None:
        activation = {**RELUS, **RELU6S}[spelling]
        torch.testing.assert_close(pull(activation, Z, G, "deconvnet"), GRID * (GRID > 0))

    def test_inplace_relu_changes_the_tensor_it_is_given(self) -> None:
        def forgetful(x: Tensor) -> Tensor:
            x = x * 2
            functional.relu(x, inplace=True)  # the result is not kept
            return x

        pullback = pull(forgetful, Z, G, "excitation")
        torch.testing.assert_close(pullback, 2 * GRID * torch.sigmoid(2 * Z / T))

    @pytest.mark.parametrize("spelling", [*RELUS, *RELU6S])
    def test_semantic_gates_relu_and_relu6_by_the_normal_distribution(self, spelling: str) -> None:
        activation = {**RELUS, **RELU6S}[spelling]
        pullback = pull(activation, Z, G, "semantic")
        torch.testing.assert_close(pullback, GRID * torch.special.ndtr(Z / (0.6 * T)))

    @pytest.mark.parametrize("method", sorted({*PULLBACKS[2:]} - QUOTIENTS))
    def test_other_clamps_keep_their_gradient(self, method: str) -> None:
        bound = torch.zeros(4, dtype=torch.float64)
        for clamp in (
            nn.Hardtanh(),
            lambda x: x.clamp(min=-1),
            lambda x: x.clamp(bound, bound + 6),
        ):
            torch.testing.assert_close(pull(clamp, Z, G, method), pull(clamp, Z, G, "gradient"))


def soft_max_pool(
    x: Tensor,
    outputs: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """The pool that excitation differentiates, window by window: x [1, C, *sizes]."""
    pooled = []
    for output in itertools.product(*map(range, outputs)):
        elements = []
        for offset in itertools.product(*map(range, kernel)):
            at = [
                o * s - p + k * d
                for o, s, p, k, d in zip(output, stride, padding, offset, dilation, strict=True)
            ]
            inside = all(0 <= i < size for i, size in zip(at, x.shape[2:], strict=True))
            elements.append(x[(..., *at)] if inside else torch.zeros_like(x[:, :, *[0] * len(at)]))
        window = torch.stack(elements)
        pooled.append((window * torch.softmax(window / T, dim=0)).sum(dim=0))
    return torch.stack(pooled, dim=-1).unflatten(-1, outputs)


@st.composite
def pools(draw: st.DrawFn) -> dict[str, Any]:
    axes = draw(st.integers(1, 3))
    per_axis = lambda low, high: [draw(st.integers(low, high)) for _ in range(axes)]  # noqa: E731
    kernel, dilation = per_axis(1, 3), per_axis(1, 2)
    return {
        "kernel_size": kernel,
        "stride": per_axis(1, 3),
        "padding": [draw(st.integers(0, k // 2)) for k in kernel],
        "dilation": dilation,
        "ceil_mode": draw(st.booleans()),
        "sizes": [
            d * (k - 1) + 1 + draw(st.integers(0, 3)) for k, d in zip(kernel, dilation, strict=True)
        ],
    }


class TestMaxPool:
    @settings(max_examples=40, deadline=None)
    @given(pools())
    def test_excitation_is_the_gradient_of_the_softmax_weighted_pool(
        self, drawn: dict[str, Any]
    ) -> None:
        sizes = drawn.pop("sizes")
        pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[len(sizes) - 1](**drawn)
        x = draw(1, 2, *sizes)
        y = pool(x)
        g = draw(1, y.numel())

        leaf = x.clone().requires_grad_()
        kernel, stride, padding, dilation = (
            drawn[key] for key in ("kernel_size", "stride", "padding", "dilation")
        )
        soft = soft_max_pool(leaf, y.shape[2:], kernel, stride, padding, dilation)
        (expected,) = torch.autograd.grad(soft, leaf, g.reshape(soft.shape))

        torch.testing.assert_close(pull(pool, x, g, "excitation"), expected)

    def test_the_overhang_of_a_ceil_mode_window_takes_part_as_zero(self) -> None:
        x = torch.tensor([[[0.3, 0.6, 0.9]]], dtype=torch.float64)
        g = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
        pullback = pull(nn.MaxPool1d(2, ceil_mode=True), x, g, "excitation")
        w = torch.softmax(torch.tensor([0.9, 0.0], dtype=torch.float64) / T, dim=0)[0]
        expected = w * (1 + (0.9 - 0.9 * w) / T)
        torch.testing.assert_close(pullback, torch.tensor([[[0.0, 0.0, float(expected)]]]).double())

    def test_elements_that_no_window_reads_get_nothing(self) -> None:
        pullback = pull(nn.MaxPool1d(2), draw(1, 1, 5), draw(1, 2), "excitation")
        assert pullback[0, 0, 4] == 0
        assert (pullback[0, 0, :4] != 0).all()

    @pytest.mark.parametrize(
        "pool",
        [
            nn.MaxPool2d(2),
            lambda x: functional.max_pool2d(x, 2),
            lambda x: functional.max_pool2d(x, kernel_size=[2], stride=2),
            lambda x: torch.max_pool2d(x, [2, 2]),
        ],
    )
    def test_every_spelling_is_caught(self, pool: Callable[[Tensor], Tensor]) -> None:
        g = draw(1, 12)
        expected = pull(nn.MaxPool2d(2, 2), Z, g, "excitation")
        assert not torch.equal(expected, pull(nn.MaxPool2d(2, 2), Z, g, "gradient"))
        assert torch.equal(pull(pool, Z, g, "excitation"), expected)

    @pytest.mark.parametrize("method", ["guided", "deconvnet"])
    def test_baselines_take_the_true_gradient(self, method: str) -> None:
        pool, g = nn.MaxPool2d(3, 2, 1), draw(1, 12)
        assert torch.equal(pull(pool, Z, g, method), pull(pool, Z, g, "gradient"))


def torchvision_network(name: str) -> nn.Module:
    torch.manual_seed(0)
    extra = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    network: nn.Module = torchvision.models.get_model(name, weights=None, **extra)
    return network.eval()


class TestNetwork:
    @pytest.mark.parametrize(
        "name", ["resnet18", "densenet121", "googlenet", "mobilenet_v2", "squeezenet1_1"]
    )
    def test_logits_are_bit_identical_and_the_network_unchanged(self, name: str) -> None:
        network, images = torchvision_network(name), torch.randn(2, 3, 64, 64)
        before = images.clone()
        logits, excitation = explain(network, images, torch.tensor([-1, -1]), "excitation")
        assert torch.equal(logits, network(images).detach())
        assert torch.equal(images, before)
        assert excitation.shape == images.shape
        _, gradient = explain(network, images, torch.tensor([-1, -1]), "gradient")
        assert Parity.of(excitation, gradient).cosine < 0.99  # the rules were at work

    def test_gradient_is_plain_autograd(self) -> None:
        network = torchvision_network("resnet18")
        images = torch.randn(2, 3, 64, 64, requires_grad=True)
        targets = torch.tensor([3, 7])
        picked = network(images).gather(1, targets[:, None]).sum()
        (expected,) = torch.autograd.grad(picked, images)
        assert torch.equal(explain(network, images, targets, "gradient")[1], expected)
        _, pullback = explain(network, images, targets, "input-x-gradient")
        assert torch.equal(pullback, images.detach() * expected)

    @pytest.mark.parametrize("method", PULLBACKS)
    def test_batch_norm_of_one_image_reads_a_cotangent_in_any_layout(self, method: str) -> None:
        """torch 2.15's own backward pass gets this wrong, for a batch of one alone."""
        norm = nn.BatchNorm2d(3).double().eval()
        nn.init.uniform_(norm.weight, 1, 2)
        tokens = lambda x: norm(x * 1.0).flatten(2).transpose(1, 2).exp()  # noqa: E731
        _, alone = explain(Sandwich(tokens, G), Z, torch.tensor([0]), method)
        twice = torch.cat([Z, Z])
        _, together = explain(Sandwich(tokens, G), twice, torch.tensor([0, 0]), method)
        torch.testing.assert_close(alone, together[:1])

    def test_excitation_temperature_is_0_3_unless_told(self) -> None:
        relu, target = Sandwich(nn.ReLU(), G), torch.tensor([0])
        by_default = explain(relu, Z, target, "excitation")[1]
        assert torch.equal(by_default, explain(relu, Z, target, "excitation", 0.3)[1])
        torch.testing.assert_close(
            explain(relu, Z, target, "excitation", 2.0)[1], GRID * torch.sigmoid(Z / 2)
        )

    @pytest.mark.parametrize("method", PULLBACKS)
    def test_works_under_no_grad_and_in_float32(self, method: str) -> None:
        with torch.no_grad():
            _, pullback = explain(
                Sandwich(nn.ReLU(), G.float()), Z.float(), torch.tensor([0]), method
            )
        assert pullback.dtype == torch.float32
        assert not pullback.requires_grad


class TestTargets:
    @pytest.mark.parametrize("method", PULLBACKS)
    def test_k_targets_equal_k_single_runs(self, method: str) -> None:
        network = Sandwich(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), draw(5, 12)).eval()
        images, targets = draw(2, 3, 4, 4), torch.tensor([[0, 4, -1], [2, 2, -5]])
        logits, pullback = explain(network, images, targets, method)
        assert pullback.shape == (2, 3, 3, 4, 4)
        for k in range(3):
            single_logits, single = explain(network, images, targets[:, k], method)
            assert torch.equal(logits, single_logits)
            assert torch.equal(pullback[:, k], single)

    def test_negative_targets_count_from_the_top_of_the_ranking(self) -> None:
        logits = torch.tensor([[0.1, 0.9, 0.5], [7.0, 7.0, 8.0]])
        targets = torch.tensor([[-1, -2, -3, 0], [-1, -2, -3, 2]])
        assert resolve_targets(logits, targets).tolist() == [[1, 2, 0, 0], [2, 0, 1, 2]]
        assert resolve_targets(logits, torch.tensor([-2, 1])).tolist() == [2, 1]

    @pytest.mark.parametrize("targets", [[3], [-4], [0, 0], [[[0]]], 0])
    def test_impossible_targets_are_refused(self, targets: Any) -> None:
        with pytest.raises(InputError, match="targets must"):
            explain(Sandwich(nn.ReLU(), draw(3, 48)), Z, torch.tensor(targets), "gradient")


class TestRefusals:
    def test_unknown_method_names_the_known_ones(self) -> None:
        with pytest.raises(InputError, match="excitation"):
            explain(nn.Flatten().eval(), Z, torch.tensor([0]), "nonsense")

    def test_temperature_must_be_positive(self) -> None:
        with pytest.raises(InputError, match="positive"):
            explain(nn.Flatten().eval(), Z, torch.tensor([0]), "excitation", 0.0)

    def test_training_mode_is_refused(self) -> None:
        with pytest.raises(InputError, match="eval"):
            explain(nn.Flatten(), Z, torch.tensor([0]), "gradient")

    def test_a_module_without_logits_is_refused(self) -> None:
        with pytest.raises(InputError, match="logits"):
            explain(nn.ReLU().eval(), Z, torch.tensor([0]), "gradient")
