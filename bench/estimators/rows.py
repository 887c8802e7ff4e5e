"""What is compared: a row for each explanation, its parameters, and who else gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from onnxplain.bench.estimators import peers
from onnxplain.bench.estimators.networks import ATTENTION, CANONIZER, RELU, Network
from onnxplain.bench.estimators.peers import Array, Peer, total_and_delta
from onnxplain.contract.estimator import CONVERGENCE_DELTA
from onnxplain.contract.explain import PULLBACK

LAYER, PROBED = "layer", "probed"


@dataclass(frozen=True)
class Row:
    """An explanation that a package gives too.

    Attributes:
        package: by which it is compared, and `peer` what asks it.
        at: the layer of the map, an attribute of the network, if it is one.
        needs: what the package must find in the network.
        merged: whether the network is one with its norms in the convolutions.
        outputs: of our file, of which `read` makes what is compared.
    """

    method: str
    package: str
    peer: Peer
    estimator: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    at: str | None = None
    needs: str | None = None
    merged: bool = True
    outputs: Sequence[str] = (PULLBACK,)
    read: Callable[[Mapping[str, Array]], Array] = itemgetter(PULLBACK)

    @property
    def name(self) -> str:
        """Method and estimator, of its parameters those that are words, and outputs besides the
        explanation."""
        words = [value for value in self.parameters.values() if isinstance(value, str)]
        words += self.outputs[1:]
        return " of ".join([*filter(None, [self.estimator]), self.method]) + "".join(
            f", {word}" for word in words
        )

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.package

    def goes_with(self, network: Network) -> bool:
        return self.needs is None or self.needs in network.has


CAPTUM, GRAD_CAM, LXT, HAND = "Captum", "pytorch-grad-cam", "lxt", "the paper's formula"
ZENNIT, MERGED = "zennit", "zennit, norms merged"
THROUGHOUT = "Captum, in float64 throughout"
"""With norms that are merged nowhere and points that are not rounded: where a preactivation lies
within float32's rounding of 0, a hard gate is open on one side alone."""
INTEGRATED = "integrated-gradients"
PATH = {"steps": 10}
DRAWS = {"samples": 4}
NOISE = {"samples": 4, "sigma": 0.15}

SEVERAL = {"steps": 4, "baseline": "zero,black,mean"}

ROWS: Sequence[Row] = (
    *(
        row
        for parameters in (PATH, SEVERAL)
        for row in (
            Row("gradient", CAPTUM, peers.integrated_gradients, INTEGRATED, parameters),
            Row(
                "gradient",
                CAPTUM,
                peers.completeness,
                INTEGRATED,
                parameters,
                outputs=(PULLBACK, CONVERGENCE_DELTA),
                read=lambda found: total_and_delta(*found.values()),
            ),
        )
    ),
    Row(
        "gradient",
        THROUGHOUT,
        peers.integrated_in_float64,
        INTEGRATED,
        SEVERAL,
        merged=False,
    ),
    Row("gradient", CAPTUM, peers.noise_tunnel("smoothgrad"), "smoothgrad", NOISE),
    Row("gradient", CAPTUM, peers.noise_tunnel("smoothgrad_sq"), "smoothgrad-squared", NOISE),
    Row("gradient", CAPTUM, peers.noise_tunnel("vargrad"), "vargrad", NOISE),
    *(
        Row("gradient", package, peers.gradient_shap, "expected-gradients", DRAWS, merged=merged)
        for package, merged in ((CAPTUM, True), (THROUGHOUT, False))
    ),
    Row("guided-gradcam", CAPTUM, peers.guided_gradcam, at=LAYER, needs=RELU),
    *(
        Row(method, GRAD_CAM, peers.grad_cam(peer), at=LAYER)
        for method, peer in {
            "gradcam": "GradCAM",
            "gradcam++": "GradCAMPlusPlus",
            "xgradcam": "XGradCAM",
            "layercam": "LayerCAM",
            "hirescam": "HiResCAM",
            "eigencam": "EigenCAM",
            "eigengradcam": "EigenGradCAM",
        }.items()
    ),
    Row("gradcam++", HAND, peers.weighted_map(peers.plus_plus), at=LAYER),
    Row("xgradcam", HAND, peers.weighted_map(peers.x_grad), at=LAYER),
    *(
        Row(method, GRAD_CAM, peers.grad_cam(peer), parameters={"chunk": 16}, at=PROBED)
        for method, peer in {"scorecam": "ScoreCAM", "ablationcam": "AblationCAM"}.items()
    ),
    *(
        Row(method, package, peers.of_zennit(composite, *bounds), needs=CANONIZER, merged=merged)
        for package, merged in ((ZENNIT, False), (MERGED, True))
        for method, (composite, *bounds) in {
            "lrp-epsilon-plus": ("EpsilonPlus",),
            "lrp-epsilon-plus-flat": ("EpsilonPlusFlat",),
            "lrp-epsilon-gamma-box": ("EpsilonGammaBox", peers.BLACK, peers.WHITE),
            "lrp-epsilon-alpha2-beta1": ("EpsilonAlpha2Beta1",),
            "lrp-epsilon-alpha2-beta1-flat": ("EpsilonAlpha2Beta1Flat",),
        }.items()
    ),
    *(Row(method, LXT, peers.of_lxt(method), needs=ATTENTION) for method in ("attn-lrp", "cp-lrp")),
    *(
        Row(method, HAND, peers.attention_map(step), needs=ATTENTION)
        for method, step in {
            "attention-rollout": peers.rollout,
            "transformer-attribution": peers.attribution,
        }.items()
    ),
)
