"""The points in which our methods and their authors' code differ, or did, each with its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import onnxplain
from onnxplain.bench.fidelity import definitions, residual
from onnxplain.bench.fidelity.definitions import Layers, from_0_to_1, maps
from onnxplain.contract import steps
from onnxplain.contract.channels import maximum, mean
from onnxplain.contract.explain import IMAGE
from onnxplain.reference.float64 import evaluate_in_float64
from onnxplain.reference.pytorch import explain
from onnxplain.runtime.sessions import open_session
from onnxplain.signal.autoencoder import Autoencoder, Design
from onnxplain.signal.weights import load_autoencoder
from onnxplain.vital.graphs.channels import write_channels
from onnxplain.vital.graphs.features import write_features
from onnxplain.vital.graphs.subject import Subject, read_subject
from onnxplain.vital.recipes import recipe_of
from onnxplain.vital.result import opacity
from onnxplain.vital.settings import Flow

Array = NDArray[Any]

SMALL = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
IMAGES = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
TARGET = 1


@dataclass(frozen=True)
class Figures:
    """Relative L2 of ours to theirs: by default, and with the option that makes ours theirs.

    None where there is no such figure: no option, or no difference that a number tells.
    """

    default: float | None
    option: float | None = None


@dataclass(frozen=True)
class Row:
    """A point of difference.

    Attributes:
        number: for tests to find it.
        what: the definition in question.
        theirs, ours: what each does; `ours` by default.
        option: how to have theirs; empty where it is the default, or cannot be had.
        measure: its figures, with a folder to work in.
    """

    number: str
    what: str
    theirs: str
    ours: str
    option: str
    measure: Callable[[Path], Figures]


def relative(found: Any, expected: Any) -> float:
    """‖found − expected‖₂ / ‖expected‖₂."""
    found, expected = (np.asarray(x, np.float64) for x in (found, expected))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def explained(module: nn.Module, folder: Path, images: Array = SMALL, **options: Any) -> Array:
    """Our pullback of class `TARGET`."""
    path = folder / "explain.onnx"
    onnxplain.export(module, path, example=torch.zeros(1, *images.shape[1:]), **options)
    found: Array = onnxplain.load(path, "cpu")(images, TARGET).pullback
    return found


def seeded(kind: type[nn.Module]) -> Any:
    torch.manual_seed(0)
    return kind().eval()


def functional_relu(folder: Path) -> Figures:
    network = seeded(definitions.TwoGates)
    theirs = definitions.softened(network, SMALL, torch.relu, lambda y: y[:, TARGET])
    ours = explained(network, folder, temperature=0.3)
    option = explained(network, folder, temperature=0.3, excepted=["node_relu_1"])
    return Figures(relative(ours, theirs), relative(option, theirs))


def attention(folder: Path) -> Figures:
    network = seeded(definitions.Attention)
    x = torch.from_numpy(SMALL).double().requires_grad_()
    (theirs,) = torch.autograd.grad(network.double()(x)[:, TARGET].sum(), x)
    return Figures(relative(explained(network.float(), folder, method="semantic"), theirs))


def temperatures(folder: Path) -> Figures:
    network = definitions.beginning_of_a_resnet()
    by_rule = {"relu": 0.5, "max_pool": 0.5}
    target = torch.full((len(IMAGES),), TARGET)
    double = torch.from_numpy(IMAGES).double()
    _, theirs = explain(network.double(), double, target, "semantic", **by_rule)
    ours = partial(explained, network.float(), folder, IMAGES, method="semantic")
    return Figures(relative(ours(), theirs), relative(ours(parameters=by_rule), theirs))


def ascent(folder: Path) -> Figures:
    network = definitions.beginning_of_a_resnet()
    explained(network, folder, IMAGES, method="semantic")
    explainer = onnxplain.load(folder / "explain.onnx", "cpu")
    mean, std = (
        torch.tensor(v, dtype=torch.float64).view(-1, 1, 1)
        for v in (explainer.metadata.preprocessing.mean, explainer.metadata.preprocessing.std)
    )
    target = torch.full((len(IMAGES),), TARGET)

    def gradient(pixels: torch.Tensor) -> torch.Tensor:
        x = ((pixels + 1) / 2 - mean) / std
        return explain(network.double(), x, target, "semantic")[1] / (2 * std)

    inside = 0.3 * np.tanh(IMAGES)
    start = 2 * (torch.from_numpy(inside).double() * std + mean) - 1
    theirs = definitions.ascended(gradient, start, 10, 20.0, None) - start
    ours = onnxplain.accentuate(explainer, inside, TARGET).difference
    v1 = onnxplain.accentuate(explainer, inside, TARGET, 5, 20.0, 100.0).difference
    return Figures(relative(ours, theirs), relative(v1, theirs))


def features(folder: Path, kind: str, pool_rule: str = "window") -> dict[str, Array]:
    """What our graph finds of the images, for the channel of `definitions`."""
    subject = read_subject(
        definitions.beginning_of_a_resnet(),
        example=torch.zeros(1, 3, 32, 32),
        layers=[definitions.FIRST, definitions.SECOND],
        neuron=definitions.NEURON,
    )
    return run_features(subject, Flow(kind, pool_rule), definitions.CHANNEL, folder)


def run_features(subject: Subject, flow: Flow, channel: int, folder: Path) -> dict[str, Array]:
    """In float64 where a choice of the greatest depends on rounding."""
    path = folder / "features.onnx"
    write_features(subject, path, flow)
    given = {IMAGE: IMAGES, steps.CHANNEL: np.full(len(IMAGES), channel)}
    if flow.share < 1:
        return dict(evaluate_in_float64(path, given))
    found: dict[str, Array] = open_session(path, "cpu").run(given)
    return found


def through_blocks(folder: Path, apart: bool, flow: Flow, skip: str, top: float) -> float:
    """How far the relevance that comes through a small ResNet is from the definition's."""
    network = seeded(residual.SmallResNet)
    subject = read_subject(
        network,
        example=torch.zeros(1, 3, 32, 32),
        layers=residual.LAYERS,
        neuron=residual.NEURON,
        fold_norms=not apart,
    )
    found = run_features(subject, flow, residual.CHANNEL, folder)
    maps, outputs = residual.Relevance(network, skip, top).maps(IMAGES)
    theirs = [(from_0_to_1(R, (2, 3)) * a).flatten(2) for R, a in zip(maps, outputs, strict=True)]
    return max(relative(found[steps.quantity(i)], each) for i, each in enumerate(theirs))


def first_map(kind: str, pool_rule: str = "window") -> torch.Tensor:
    """What is matched of the first layer, by the definition."""
    layers = Layers(definitions.beginning_of_a_resnet(), IMAGES)
    scaled = from_0_to_1(maps(layers, kind, pool_rule)[0], (2, 3))
    return (scaled * layers.first).flatten(2)


def pool(folder: Path) -> Figures:
    theirs = first_map("lrp", "vital")
    window, halved = (features(folder, "lrp", rule) for rule in ("window", "vital"))
    name = steps.quantity(0)
    return Figures(relative(window[name], theirs), relative(halved[name], theirs))


def guided(folder: Path) -> Figures:
    return Figures(relative(features(folder, "guided")[steps.quantity(0)], first_map("guided")))


def importance(folder: Path) -> Figures:
    layers = Layers(definitions.beginning_of_a_resnet(), IMAGES)
    theirs = from_0_to_1(maps(layers, "lrp")[0].amax((2, 3)), (1,))
    found = features(folder, "lrp")[steps.importance(0)]
    return Figures(relative(found.mean(0), theirs.mean(0)))


def restricted(folder: Path) -> Figures:
    found = features(folder, "restricted")[steps.quantity(0)]
    return Figures(relative(found, first_map("restricted")))


def patches(folder: Path) -> Figures:
    network = definitions.beginning_of_a_resnet()
    theirs = definitions.best_patches(network, IMAGES, 9)
    subject = read_subject(network, example=torch.zeros(1, 3, 32, 32), layers=[definitions.NEURON])
    found = []
    for side in (None, 9):
        write_channels(subject, folder / "channels.onnx", patch=side)
        found.append(open_session(folder / "channels.onnx", "cpu").run({IMAGE: IMAGES}))
    whole, sliding = found
    return Figures(relative(whole[maximum(0)], theirs), relative(sliding[mean(0)], theirs))


def negative_gamma(folder: Path) -> Figures:
    folded, apart = (
        through_blocks(folder, apart, Flow(), "flows_skip", 1.0) for apart in (False, True)
    )
    return Figures(folded, apart)


def shortcuts(folder: Path) -> Figures:
    """The three that are not the default, the worst of them; by default, from the nearest."""
    others = {"half": "flows_skip_simple", "branch-ratio": "latest", "branch-half": "simple"}
    by = partial(through_blocks, folder, True)
    default = min(by(Flow(), name, 1.0) for name in others.values())
    return Figures(default, max(by(Flow(skip=own), name, 1.0) for own, name in others.items()))


def filtered(folder: Path) -> Figures:
    by = partial(through_blocks, folder, True)
    whole, some = (by(Flow(share=share), "flows_skip", 0.2) for share in (1.0, 0.2))
    return Figures(whole, some)


def layers_matched(folder: Path) -> Figures:
    expected = {"vit_b_16": (0, 4, 8, 11), "vit_l_16": (2, 9, 20, 23)}
    for name, blocks in expected.items():
        recipe = recipe_of(name)
        found = () if recipe is None else recipe.layers[1:]
        if found != tuple(f"encoder.layers.encoder_layer_{i}" for i in blocks):
            return Figures(1.0)
    return Figures(0.0)


def transparent(folder: Path) -> Figures:
    magnitude = np.random.default_rng(0).random((2, 64, 64)).astype(np.float32)
    top = np.percentile(magnitude, 98, axis=(1, 2), keepdims=True)
    return Figures(relative(opacity(magnitude), magnitude.clip(None, top) / top))


def channel_order(folder: Path) -> Figures:
    torch.manual_seed(0)
    network = Autoencoder(Design("segnet", 32)).eval()
    state = {".".join(name.split(".")[-2:]): t for name, t in network.state_dict().items()}
    torch.save({b"model_state": {name.encode(): t for name, t in state.items()}}, folder / "a.pth")
    pixels = torch.from_numpy(np.random.default_rng(0).random((1, 3, 32, 32), np.float32))
    with torch.no_grad():
        theirs = network(pixels)
        mean, std = network.mean, network.std
        ours, bgr = (load_autoencoder(folder / "a.pth", order) for order in ("rgb", "bgr"))
        flipped = (network((pixels.flip(1) - mean.flip(1)) / std.flip(1) * std + mean) - mean) / std
        expected = flipped.flip(1) * std + mean
        return Figures(relative(ours(pixels), theirs), relative(bgr(pixels), expected))


ROWS = (
    Row(
        "A1", "excitation: DenseNet's last ReLU, a function", "not softened: modules are replaced",
        "softened, by the rule as stated", "`--except NODE`", functional_relu,
    ),
    Row(
        "B1", "semantic: attention of a plain ViT", "a gradient through queries and keys",
        "weights held constant, as in their PVT, the transformer that they evaluate", "",
        attention,
    ),
    Row(
        "B2", "semantic: temperatures of their newer scripts", "each rule its own",
        "the paper's, and one factor for all",
        "`--param relu=0.5 --param max_pool=0.5`; as inputs: `--live relu --live max_pool`",
        temperatures,
    ),
    Row(
        "B3", "the ascent's steps, α and ε", "v1: 5, 20 and 100; v6: 10, 20 and none",
        "the method's own", "v1's for semantic: `--steps 5 --eps 100`", ascent,
    ),
    Row(
        "C1", "VITAL: relevance through a max-pool of 3 × 3", "as an average of 2 × 2, stride 2",
        "as the average of its own window", "`--pool-rule vital`", pool,
    ),
    Row(
        "C2", "VITAL: guided relevance", "a last ReLU on the layer's gradient", "theirs", "",
        guided,
    ),
    Row(
        "C3", "VITAL: importance of channels", "from 0 to 1 for each reference, then their mean",
        "theirs", "", importance,
    ),
    Row(
        "C4", "VITAL: restricted relevance", "starts from 1, and 1e-6 is added to what divides",
        "theirs", "", restricted,
    ),
    Row(
        "C5", "VITAL: z⁺ where a BatchNorm's γ is negative",
        "the convolution's own weights clamped",
        "the weights with γ in them clamped: what the layer computes", "`--batch-norm apart`",
        negative_gamma,
    ),
    Row(
        "C6", "VITAL: what ranks the photographs of a channel",
        "the mean in the best patch of 64 × 64, each patch being the network's whole input",
        "the greatest activation anywhere", "`--ranking patches`; `mean` too", patches,
    ),
    Row(
        "C7", "VITAL: layers matched in ViT-B, ViT-L, ConvNeXt",
        "0, 4, 8, 11; 2, 9, 20, 23; 2.1, 4.1, 6.1, 7.2", "theirs", "`--layers`", layers_matched,
    ),
    Row(
        "C8", "VITAL: the transparent picture", "opaque from the 98th percentile, stretched",
        "theirs", "ours of before: `--transparency smooth`", transparent,
    ),
    Row(
        "C9", "VITAL: relevance where a block and its shortcut meet",
        "by magnitude (flows_skip); flows_skip_simple, latest and simple are in the code",
        "by magnitude", "`--skip-rule half`, `branch-ratio`, `branch-half`", shortcuts,
    ),
    Row(
        "C10", "VITAL: relevance, the greatest of each layer alone (`rel_pass_ratio`)",
        "all of it; a share in the code", "all of it", "`--relevance-share 0.2`", filtered,
    ),
    Row(
        "D1", "SegNet: the order of channels", "their published script feeds and reads RGB",
        "theirs; names may be bytes (D2)", "`--channels bgr` for another training", channel_order,
    ),
)  # fmt: skip


def measure() -> dict[str, Figures]:
    """Every row's figures, by its number."""
    found = {}
    for row in ROWS:
        with TemporaryDirectory(prefix="onnxplain-") as folder:
            found[row.number] = row.measure(Path(folder))
    return found
