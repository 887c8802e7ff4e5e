"""What a step of each stage changes, and by what."""

from __future__ import annotations

import torch
from torch import nn

from onnxplain.signal.autoencoder import Autoencoder
from onnxplain.signal.classifiers import frozen
from onnxplain.signal.training import RECONSTRUCTION, TUNING, Stage, freeze_for, stage_loss

from .small import Linear, autoencoder

PIXELS = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2, 0])


class Normed(nn.Module):
    """A classifier with BatchNorm, whose statistics must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm2d(3), Linear(3, 16, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(pixels))


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {n for n, tensor in module.state_dict().items() if not torch.equal(tensor, before[n])}


def take_step(stage: Stage, network: Autoencoder, classifier: nn.Module | None) -> None:
    optimizer = torch.optim.Adam(freeze_for(stage, network), stage.rate)
    stage_loss(stage, network, classifier, PIXELS, LABELS).backward()
    optimizer.step()


def test_reconstruction_trains_every_weight() -> None:
    network = autoencoder()
    before = state(network)
    take_step(Stage(RECONSTRUCTION, 1, 1e-3), network, None)
    learning = {name for name, _ in network.named_parameters()}
    # A bias before BatchNorm has no effect, and so no gradient but rounding.
    idle = {n for n in learning if n.endswith(".bias") and ".conv" in n and "final" not in n}
    assert learning - idle <= changed(network, before)


def test_tuning_changes_the_decoders_weights_alone() -> None:
    network, classifier = autoencoder(), frozen(Normed())
    before, theirs = state(network), state(classifier)
    take_step(Stage(TUNING, 1, 1e-3), network, classifier)
    parameters = {name for name, _ in network.decoder.named_parameters()}
    assert changed(network, before) == {f"decoder.{name}" for name in parameters}
    assert not changed(classifier, theirs)


def test_tuning_leaves_all_batchnorm_statistics() -> None:
    network, classifier = autoencoder(), frozen(Normed())
    before, theirs = state(network), state(classifier)
    take_step(Stage(TUNING, 1, 1e-3), network, classifier)
    assert not {name for name in changed(network, before) if "running" in name or "batches" in name}
    assert not changed(classifier, theirs)


def test_tuning_changes_nothing_where_the_classifiers_gradient_is_zero() -> None:
    network, classifier = autoencoder(), Linear(3, 16, 3)
    nn.init.zeros_(classifier.layer.weight)
    before = state(network)
    take_step(Stage(TUNING, 1, 1e-3), network, frozen(classifier))
    assert not changed(network, before)


def test_the_decoders_gradient_is_the_classifiers_pulled_back() -> None:
    network, classifier = autoencoder(), frozen(Linear(3, 16, 3))
    stage = Stage(TUNING, 1, 1e-3)
    learning = freeze_for(stage, network)
    stage_loss(stage, network, classifier, PIXELS, LABELS).backward()
    found = [parameter.grad for parameter in learning]
    reconstruction = network(PIXELS)
    seen = reconstruction.detach().requires_grad_()
    nn.functional.cross_entropy(classifier(seen), LABELS).backward()
    expected = torch.autograd.grad(reconstruction, learning, seen.grad)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine, theirs)
