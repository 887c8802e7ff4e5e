"""A step of feature visualisation as a graph, against PyTorch, on EfficientNet-Lite0."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from onnxplain.contract import steps
from onnxplain.contract.explain import IMAGE, TARGET
from onnxplain.contract.steps import StepMetadata, following
from onnxplain.reference.pytorch import vital

from .reference import PARITY, Case, Traced, gradient, losses, parity, relative, traced

SIZE, STAGE = 64, 3
EXACT = 1e-5

pytestmark = pytest.mark.xdist_group("vital-step")  # what they share takes long to make


@pytest.fixture(scope="module")
def lite0_traced() -> Traced:
    return traced("efficientnet-lite0", SIZE, torch.float32)


@pytest.fixture(scope="module")
def make(
    lite0_traced: Traced,
    photographs: dict[str, np.ndarray],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Case]:
    shown = list(photographs.values())
    return cache(
        lambda **chosen: Case(lite0_traced, shown, tmp_path_factory.mktemp("step"), **chosen)
    )


@pytest.fixture(scope="module")
def of_class(make: Callable[..., Case]) -> Case:
    return make()


@pytest.fixture(scope="module")
def of_neuron(make: Callable[..., Case]) -> Case:
    return make(neuron=STAGE)


@pytest.fixture(scope="module")
def class_step(of_class: Case):
    return of_class.open()


@pytest.fixture(scope="module")
def neuron_step(of_neuron: Case):
    return of_neuron.open()


@pytest.fixture(params=["class", "neuron"])
def both(request: pytest.FixtureRequest):
    """A class's case and graph, and a neuron's."""
    return (
        request.getfixturevalue(f"of_{request.param}"),
        request.getfixturevalue(f"{request.param}_step"),
    )


def test_templates_and_importances_of_photographs_are_the_reference_s(both) -> None:
    case, _ = both
    for found, expected in zip(
        [*case.templates, *case.importances], [*case.expected[0], *case.expected[1]], strict=True
    ):
        assert relative(found[0], expected) <= EXACT


def test_loss_and_gradient_are_the_reference_s(both) -> None:
    case, step = both
    assert max(parity(case, step, case.noise)) <= PARITY


def test_every_layer_alone_gives_the_reference_s_loss_and_gradient(both) -> None:
    case, step = both
    noise, weights = case.noise, case.weights
    try:
        for row in np.eye(len(weights)):
            case.weights = tuple(row.tolist())
            assert max(parity(case, step, noise)) <= PARITY
    finally:
        case.weights = weights


@pytest.mark.parametrize("relevance", ["restricted", "guided"])
def test_other_relevances_are_the_reference_s(
    make: Callable[..., Case], of_neuron: Case, relevance: str
) -> None:
    case = make(neuron=STAGE, relevance=relevance)
    # Guided backpropagation has a threshold at every ReLU, where rounding decides.
    bound = 10 * PARITY if relevance == "guided" else EXACT
    for found, expected in zip(case.templates[:-1], case.expected[0][:-1], strict=True):
        assert relative(found[0], expected) <= bound
    assert relative(case.templates[0], of_neuron.templates[0]) > 10 * bound, "no other than z+"
    assert max(parity(case, case.open(), of_neuron.noise)) <= PARITY


def test_guided_relevance_is_the_same_all_over_the_neuron_s_own_channel(
    make: Callable[..., Case],
) -> None:
    """So that from 0 to 1 it is 0: the neuron's own layer has no part in the loss."""
    case = make(neuron=STAGE, relevance="guided")
    assert not case.templates[-1].any()
    assert not case.expected[0][-1].any()


@pytest.mark.parametrize("mirrored", [0, 1])
@pytest.mark.parametrize("shift", [(0, 0), (7, -30), (-100, 13)])
def test_the_step_sees_the_picture_rolled_and_mirrored(
    of_class: Case, class_step, shift: tuple[int, int], mirrored: int
) -> None:

    def see(picture: np.ndarray) -> np.ndarray:
        return vital.moved(torch.from_numpy(picture), shift, bool(mirrored)).numpy()

    noise = of_class.smooth(see)
    ways = {
        steps.SHIFTS: np.array([shift], np.int64),
        steps.MIRRORED: np.array([mirrored], np.int64),
    }
    found = class_step.run(of_class.start(noise) | of_class.aligned() | ways)
    loss, expected = of_class.reference(see(noise))
    back = vital.moved(torch.from_numpy(expected), (0, 0), bool(mirrored))
    back = back.roll((-shift[0], -shift[1]), dims=(2, 3))
    assert relative(losses(found)[0], loss) <= EXACT
    assert relative(gradient(found), back) <= PARITY


def test_five_steps_are_torch_s_adam_each(both) -> None:
    """Each from the state that the graph reached, with the gradient that it had.

    Left to themselves, two float32 programs part: their difference grows tenfold with each step.
    """
    case, step = both
    count = 5
    given = case.start(case.noise, count) | case.aligned()
    given[steps.SHIFTS] = np.random.default_rng(1).integers(-30, 31, (count, 2))
    given[steps.MIRRORED] = np.array([0, 1, 1, 0, 1])
    given[steps.LEARNING_RATES] = np.array([0.01, 0.5, 1, 0.1, 0.02], np.float32)
    for done in range(count):
        found = step.run(given)
        x = case.tensor(given[IMAGE]).requires_grad_()
        shift, mirrored = given[steps.SHIFTS][done], given[steps.MIRRORED][done]
        loss = case.cost(vital.moved(x, tuple(shift.tolist()), bool(mirrored)))
        loss.sum().backward()
        assert relative(losses(found)[done], loss.detach()) <= EXACT
        g = 2 * found[following(steps.FIRST_MOMENT)] - given[steps.FIRST_MOMENT]  # β₁ is 1/2
        assert relative(g, x.grad) <= 10 * PARITY, "more than kinks on the way"
        for name, value in by_torch_s_adam(case, given, g).items():
            assert relative(found[following(name)], value) <= EXACT, name
        magnitude = found[following(steps.MAGNITUDE)] - given[steps.MAGNITUDE]
        assert relative(magnitude, np.abs(g)) <= EXACT
        carried = StepMetadata.from_props(step.metadata).carried
        given |= {into: found[output] for output, into in carried.items()}
    assert given[steps.STEP] == count


def by_torch_s_adam(
    case: Case, given: dict[str, np.ndarray], gradient: np.ndarray
) -> dict[str, torch.Tensor]:
    """Picture and second moment one step on."""
    done = int(given[steps.STEP])
    x = case.tensor(given[IMAGE])
    x.grad = case.tensor(gradient)
    rate = float(given[steps.LEARNING_RATES][done])
    optimiser = torch.optim.Adam([x], lr=rate, betas=(0.5, 0.9), eps=1e-8)
    optimiser.state[x] = {
        "step": torch.tensor(float(done)),
        "exp_avg": case.tensor(given[steps.FIRST_MOMENT]),
        "exp_avg_sq": case.tensor(given[steps.SECOND_MOMENT]),
    }
    optimiser.step()
    pre = case.subject.pre
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (pre.mean, pre.std))
    return {
        IMAGE: ((x * std + mean).clamp(0, 1) - mean) / std,
        steps.SECOND_MOMENT: optimiser.state[x]["exp_avg_sq"],
    }


def test_steps_on_the_device_are_steps_one_by_one(of_neuron: Case, neuron_step) -> None:
    count = 4
    carried = StepMetadata.from_props(neuron_step.metadata).carried
    given = of_neuron.start(of_neuron.noise, count) | of_neuron.aligned()
    given[steps.SHIFTS] = np.random.default_rng(2).integers(-30, 31, (count, 2))
    at_once = neuron_step.iterate(given, carried, count)
    for _ in range(count):
        found = neuron_step.run(given)
        given |= {into: found[output] for output, into in carried.items()}
    for output, into in carried.items():
        np.testing.assert_array_equal(at_once[output], given[into], err_msg=output)


def test_pixels_stay_what_pixels_can_be(of_class: Case, class_step) -> None:
    noise = of_class.noise * 3
    rates = {steps.LEARNING_RATES: np.ones(1, np.float32)}
    found = class_step.run(of_class.start(noise) | of_class.aligned() | rates)[following(IMAGE)]
    pre = of_class.subject.pre
    pixels = found * np.reshape(pre.std, (3, 1, 1)) + np.reshape(pre.mean, (3, 1, 1))
    assert pixels.min() == pytest.approx(0, abs=1e-6)
    assert pixels.max() == pytest.approx(1, abs=1e-6)


def test_two_neurons_in_a_batch_are_as_each_alone(
    make: Callable[..., Case], of_neuron: Case, neuron_step
) -> None:
    other = make(neuron=STAGE, chosen=(of_neuron.chosen + 1) % of_neuron.subject.neurons())
    cases = [of_neuron, other]
    noise = np.random.default_rng(3).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)
    alone = [
        neuron_step.run(case.start(noise[i : i + 1]) | case.aligned())
        for i, case in enumerate(cases)
    ]
    parts = [case.aligned() for case in cases]
    together = {
        name: parts[0][name]
        if name == steps.WEIGHTS
        else np.concatenate([part[name] for part in parts])
        for name in parts[0]
    }
    found = neuron_step.run(of_neuron.start(noise) | together)
    for i, one in enumerate(alone):
        assert relative(losses(found)[:, i], losses(one)[:, 0]) <= EXACT
        assert relative(gradient(found)[i], gradient(one)[0]) <= PARITY


def test_a_spectrum_is_the_picture_of_the_inverse_fourier_transform(of_class: Case) -> None:
    step = of_class.open(fourier=True)
    random = np.random.default_rng(0)
    moving = random.standard_normal((1, 2, 3, SIZE, SIZE // 2 + 1)).astype(np.float32)
    found = step.run(of_class.start(moving) | of_class.aligned())
    leaf = of_class.tensor(moving).requires_grad_()
    pre = of_class.subject.pre
    rendered = vital.picture(leaf, SIZE, pre.mean, pre.std)
    loss = of_class.cost(rendered)
    loss.sum().backward()
    assert leaf.grad is not None
    assert relative(losses(found)[0], loss.detach()) <= EXACT
    assert relative(gradient(found), leaf.grad) <= PARITY
    _, pixels = of_class.reference(rendered.detach().numpy())
    assert relative(found[following(steps.MAGNITUDE)], np.abs(pixels)) <= PARITY
    moved = torch.optim.Adam([leaf], lr=0.05, betas=(0.5, 0.9), eps=1e-8)
    moved.step()
    assert relative(found[following(steps.SPECTRUM)], leaf.detach()) <= PARITY
    after = of_class.tensor(found[following(steps.SPECTRUM)])
    after = vital.picture(after, SIZE, pre.mean, pre.std)
    assert relative(found[steps.RENDERED], after) <= EXACT


@pytest.mark.parametrize("kind", ["class", "neuron"])
def test_an_activation_can_be_maximised_instead(request: pytest.FixtureRequest, kind: str) -> None:
    case = request.getfixturevalue(f"of_{kind}")
    step = case.open(objective="activation")
    noise = case.noise
    images = np.concatenate([noise, noise[..., ::-1]])
    chosen = np.array([case.chosen, case.chosen + 1])
    which = {steps.CHANNEL if kind == "neuron" else TARGET: chosen}
    found = step.run(case.start(images) | which)
    leaf = case.tensor(images).requires_grad_()
    loss = vital.activation(case.network, leaf, torch.from_numpy(chosen))
    loss = loss + vital.priors(leaf, case.priors)
    loss.sum().backward()
    assert leaf.grad is not None
    assert relative(losses(found)[0], loss.detach()) <= EXACT
    assert relative(gradient(found), leaf.grad) <= PARITY


@pytest.mark.parametrize("which", range(3))
def test_each_prior_is_the_reference_s(of_class: Case, class_step, which: int) -> None:
    weights = np.eye(3, dtype=np.float32)[which] * 0.3
    images = np.random.default_rng(2).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)
    images[1] *= 2
    no_layer = {steps.WEIGHTS: np.zeros(len(of_class.weights), np.float32)}
    given = of_class.start(images) | of_class.aligned(2) | no_layer | {steps.PRIORS: weights}
    found = class_step.run(given)
    leaf = of_class.tensor(images).requires_grad_()
    loss = vital.priors(leaf, tuple(weights.tolist()))
    loss.sum().backward()
    assert leaf.grad is not None
    assert relative(losses(found)[0], loss.detach()) <= EXACT
    assert relative(gradient(found), leaf.grad) <= EXACT


def test_equal_activations_are_matched_as_one_rank_each(of_class: Case, class_step) -> None:
    """A grey picture: nearly all positions of a channel are tied."""
    grey = np.full((1, 3, SIZE, SIZE), 0.1, np.float32)
    first = of_class.network.quantities(torch.from_numpy(grey), None)[0][0][0]
    distinct = [len(channel.unique()) for channel in first]
    assert max(distinct) < first.shape[1] / 10
    loss, _ = of_class.reference(grey)
    found = class_step.run(of_class.start(grey) | of_class.aligned())
    assert relative(losses(found)[0], loss) <= EXACT
    assert np.isfinite(gradient(found)).all()


def test_openvino_takes_the_same_step(both) -> None:
    pytest.importorskip("openvino")
    case, step = both
    noise = case.noise
    given = case.start(noise) | case.aligned()
    found = case.open("openvino").run(given)
    expected = step.run(given)
    assert found.keys() == expected.keys()
    assert relative(losses(found), losses(expected)) <= EXACT
    assert relative(gradient(found), gradient(expected)) <= PARITY
