"""Named sets of metrics with their arguments, as papers state them."""

from __future__ import annotations

from dataclasses import dataclass

from onnxplain.errors import InputError
from onnxplain.evaluation.metrics import (
    GREY,
    HIGHER,
    LOWER,
    MASKED,
    MOSAIC,
    PATCHES,
    RANDOMISED,
    Metric,
    part,
)
from onnxplain.suggest import unknown


@dataclass(frozen=True)
class Protocol:
    """Metrics, on how many images, from which seed.

    Attributes:
        source: where it is stated.
        count: the images that it asks for, drawn by the seed where there are more.
    """

    name: str
    source: str
    metrics: tuple[Metric, ...]
    count: int
    seed: int


SEMANTIC_PULLBACKS = Protocol(
    "semantic-pullbacks",
    "Satkiewicz et al., arXiv 2507.22832 v6, by Quantus 0.6; patches and steps are for 224 × 224 "
    "pixels, and the same parts of other sizes",
    (
        Metric(
            "infidelity",
            "Infidelity",
            LOWER,
            "Does the logit fall by what the pullback says, when patches of half and of a quarter "
            "of the side become one random grey after another?",
            lambda height, width: {
                "n_perturb_samples": 5,
                "perturb_patch_sizes": [part(height, width, 2), part(height, width, 4)],
                "perturb_baseline": "uniform",
                "perturb_func_kwargs": {"uniform_low": -1.0, "uniform_high": 1.0},
                "loss_func": "optimal_beta",
            },
        ),
        Metric(
            "faithfulness-correlation",
            "FaithfulnessCorrelation",
            HIGHER,
            "Does the logit fall most where the pullback sums to most, when a patch of a quarter "
            "of the side becomes mid-grey?",
            lambda height, width: {"nr_runs": 16, "subset_size": 1, "perturb_baseline": 0.0},
            on=PATCHES,
        ),
        Metric(
            "faithfulness-estimate",
            "FaithfulnessEstimate",
            HIGHER,
            "Does the logit fall most where the pullback sums to most, when pixels sorted by it "
            "become mid-grey, a forty-eighth of all numbers at a time?",
            lambda height, width: {
                "features_in_step": part(height, width, 4) ** 2,
                "perturb_baseline": 0.0,
            },
        ),
        Metric(
            "monotonicity-correlation",
            "MonotonicityCorrelation",
            HIGHER,
            "Do pixels that the pullback calls strong move the probability more than weak ones, "
            "when they become random grey?",
            lambda height, width: {
                "nr_samples": 10,
                "features_in_step": part(height, width, 4) ** 2,
                "similarity_func": "spearman",
            },
            softmax=True,
            long=True,
        ),
        Metric(
            "max-sensitivity",
            "MaxSensitivity",
            LOWER,
            "How far does the pullback move, relative to its length, when each pixel moves by up "
            "to 0.02?",
            lambda height, width: {"nr_samples": 10, "lower_bound": 0.02},
        ),
        Metric(
            "random-logit",
            "RandomLogit",
            LOWER,
            "How alike are the pullbacks of the target and of another class, drawn at random?",
            lambda height, width: {"similarity_func": "correlation_pearson"},
        ),
        Metric(
            "focus",
            "Focus",
            HIGHER,
            "In a mosaic of two images of the target's class and two of others, how much of the "
            "positive attribution lies on the right two?",
            on=MOSAIC,
            times_image=True,
        ),
    ),
    count=1000,
    seed=314,
)

PROTOCOLS = {protocol.name: protocol for protocol in (SEMANTIC_PULLBACKS,)}

OTHERS = (
    Metric(
        "deletion",
        "PixelFlipping",
        LOWER,
        "How fast does the probability fall when what the pullback calls strongest becomes grey "
        "first? The area under its curve.",
        lambda height, width: {
            "features_in_step": part(height, width, 4) ** 2,
            "perturb_baseline": 0.0,
        },
        softmax=True,
    ),
    Metric(
        "insertion",
        "PixelFlipping",
        HIGHER,
        "How fast does the probability rise when it is put into grey first? The area under its "
        "curve.",
        lambda height, width: {"features_in_step": part(height, width, 4) ** 2},
        on=GREY,
        softmax=True,
    ),
    Metric(
        "pointing-game",
        "PointingGame",
        HIGHER,
        "Does the strongest pixel lie on what the mask says is the thing?",
        on=MASKED,
    ),
    Metric(
        "relevance-mass",
        "RelevanceMassAccuracy",
        HIGHER,
        "How much of the attribution's size lies on what the mask says is the thing?",
        on=MASKED,
    ),
    Metric(
        "mprt",
        "MPRT",
        LOWER,
        "How alike are the pixels' ranks by the network and by the same one with the weights of "
        "every layer shuffled?",
        lambda height, width: {
            "similarity_func": "spearman",
            "skip_layers": True,
            "return_last_correlation": True,
        },
        on=RANDOMISED,
    ),
    Metric(
        "smooth-mprt",
        "SmoothMPRT",
        LOWER,
        "How alike are they, where both are means over an image with noise?",
        lambda height, width: {
            "similarity_func": "spearman",
            "skip_layers": True,
            "return_last_correlation": True,
            "nr_samples": 50,
            "noise_magnitude": 0.1,
        },
        on=RANDOMISED,
    ),
    Metric(
        "efficient-mprt",
        "EfficientMPRT",
        HIGHER,
        "By how much does the entropy of the pullback's histogram rise when the weights of every "
        "layer are shuffled?",
        on=RANDOMISED,
        softmax=True,
    ),
)
"""Metrics of no protocol."""

METRICS = {
    metric.name: metric
    for metric in (*(m for one in PROTOCOLS.values() for m in one.metrics), *OTHERS)
}
"""Every metric, by name."""


def protocol_of(name: str) -> Protocol:
    """
    Raises:
        InputError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise InputError(f"no protocol {name!r}; there is {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def metrics_of(names: list[str] | None, protocol: Protocol, quick: bool) -> tuple[Metric, ...]:
    """The metrics asked for, in the order given; without names the protocol's.

    Args:
        quick: without names, leave out those that take long.

    Raises:
        InputError: an unknown name, or one given twice.
    """
    if names is None:
        return tuple(metric for metric in protocol.metrics if not (quick and metric.long))
    for name in names:
        if name not in METRICS:
            raise InputError(unknown("metric", name, METRICS))
        if names.count(name) > 1:
            raise InputError(f"metric {name!r} is given twice")
    if not names:
        raise InputError("no metric given")
    return tuple(METRICS[name] for name in names)
