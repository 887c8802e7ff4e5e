"""Is an explain graph right? Against the PyTorch reference, and against its own logits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from onnxplain.contract.explain import LOGITS, PULLBACK, Metadata
from onnxplain.errors import InputError
from onnxplain.runtime import Explainer
from onnxplain.runtime.cosines import cosines

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]

RELATIVE_L2, COSINE = 1e-3, 0.9999
"""The bounds within which a graph agrees with its reference."""


@dataclass(frozen=True)
class Parity:
    """How far an array is from its reference.

    `max_abs` is the largest difference of two elements; `relative_l2` is ‖ours − reference‖ ÷
    ‖reference‖, infinite where only the reference is zero; `cosine` is that of the angle between
    them, 0 where one is zero. Two zeros are equal: 0, 0, 1. With a NaN none of the three passes a
    bound.
    """

    max_abs: float
    relative_l2: float
    cosine: float

    @property
    def agrees(self) -> bool:
        """Whether the relative L2 and the cosine are within the bounds."""
        return self.relative_l2 <= RELATIVE_L2 and self.cosine >= COSINE

    @classmethod
    def of(cls, ours: npt.ArrayLike, reference: npt.ArrayLike) -> Parity:
        """Compare two arrays of one shape, in float64.

        Raises:
            ValueError: the shapes differ.
        """
        a, b = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
        if a.shape != b.shape:
            raise ValueError(f"shapes differ: {a.shape} and, of the reference, {b.shape}")
        a, b = a.ravel(), b.ravel()
        difference, norm = (float(np.linalg.norm(v)) for v in (a - b, b))
        return cls(
            max_abs=float(np.abs(a - b).max(initial=0)),
            relative_l2=_ratio(difference, norm),
            cosine=float(cosines([a], [b])[0]),
        )


class Explained(NamedTuple):
    """Logits [N, classes], and the pullback of normalised NCHW images."""

    logits: Array
    pullback: Array

    def parity(self, reference: Explained) -> dict[str, Parity]:
        """How far both are from their reference: {"logits": Parity, "pullback": Parity}.

        Raises:
            InputError: the numbers of classes differ.
        """
        if self.logits.shape != reference.logits.shape:
            raise InputError(
                f"the graph has {self.logits.shape[1]} classes, the network "
                f"{reference.logits.shape[1]}; is it the one that the graph was exported from?"
            )
        return {
            LOGITS: Parity.of(self.logits, reference.logits),
            PULLBACK: Parity.of(self.pullback, reference.pullback),
        }


def compare(
    explainer: Explainer, module: nn.Module, images: npt.ArrayLike, targets: npt.ArrayLike
) -> dict[str, Parity]:
    """Run an explain graph and, in float64, the PyTorch reference of its method.

    Args:
        explainer: of a graph that takes normalised float32 images, NCHW or NHWC.
        module: the network the graph was exported from; it is copied, not changed.
        images: [N, C, H, W], whatever the graph's layout.
        targets: int64 [N] or [N, K], as the graph takes them. Those that count from the top of
            the ranking follow the graph's own logits, so that a near tie between float32 and
            float64 does not compare the explanations of two classes.

    Returns:
        {"logits": Parity, "pullback": Parity}.

    Raises:
        InputError: the reference has no such method, or cannot use the module or the targets.
    """
    ours, classes = run(explainer, images, targets)
    return ours.parity(expected(explainer.metadata, module, images, classes))


def run(
    explainer: Explainer, images: npt.ArrayLike, targets: npt.ArrayLike
) -> tuple[Explained, Array]:
    """An explain graph's answer to what `compare` takes, and the classes ≥ 0 that it explained.

    Raises:
        InputError: targets of a wrong shape or out of range.
    """
    # Only here: checking a graph against its own logits needs no torch.
    import torch

    from onnxplain.reference.pytorch import resolve_targets

    target = np.asarray(targets, np.int64)
    ours = _run(explainer, np.asarray(images, np.float32), target)
    classes = resolve_targets(torch.tensor(ours.logits), torch.from_numpy(target))
    return ours, classes.numpy()


def expected(
    metadata: Metadata, module: nn.Module, images: npt.ArrayLike, classes: Array
) -> Explained:
    """The float64 reference's answer for a graph of these metadata, as `compare` takes the rest.

    Raises:
        InputError: the reference has no such method, or cannot use the module.
    """
    import torch

    from onnxplain.reference import pytorch

    logits, pullback = pytorch.explain(
        copy.deepcopy(module).double().eval(),
        torch.from_numpy(np.asarray(images, np.float32)).double(),
        torch.from_numpy(classes),
        metadata.method,
        metadata.parameters.get("temperature"),
    )
    return Explained(logits.numpy(), pullback.numpy())


@dataclass(frozen=True)
class DirectionalDerivatives:
    """A logit's derivatives along directions: [directions] by the pullback, and measured."""

    predicted: Array
    measured: Array

    @property
    def relative_error(self) -> float:
        """Median of |predicted − measured| ÷ median of |measured|, over the directions.

        Medians, because a direction that crosses a kink is wrong by any amount, and because one
        along which the logit hardly changes measures rounding alone.
        """
        error = float(np.median(np.abs(self.predicted - self.measured)))
        return _ratio(error, float(np.median(np.abs(self.measured))))


def finite_differences(
    explainer: Explainer, image: npt.ArrayLike, target: npt.ArrayLike, directions: int = 8
) -> dict[str, DirectionalDerivatives]:
    """Check a graph of the method "gradient" against its own logits.

    Along a direction v, scaled to the length of the image, the pullback p predicts the derivative
    ⟨p, v⟩, and central differences (f(x + hv) − f(x − hv)) / 2h measure it. Directions of two
    kinds: p itself on a random half of its elements, along which the derivative is large, so that
    float32's rounding hardly shows and what p says is checked sharply (a right graph is off by
    some 10⁻³); and Gaussian noise, which also points where p is silent but should not be, with a
    derivative so small that rounding leaves some 10⁻².

    Rounding adds an error ∝ 1/h; kinks between the two ends (ReLU, max-pool) one that grows with
    h. So steps h from √ε (ε = 2⁻²³) downwards are taken, each half of the one before, and the
    answer is where two neighbours agree best. That choice never looks at the prediction.

    Args:
        explainer: of a graph whose batch is free.
        image: float32 [1, C, H, W].
        target: a class, or -1, -2, … from the top of the ranking; [1, 1] where the graph takes
            several targets.
        directions: how many of each kind, drawn with a fixed seed.

    Returns:
        {"along the pullback": …, "along noise": …}.

    Raises:
        InputError: the graph is of another method, whose pullback is no derivative.
    """
    if explainer.metadata.method != "gradient":
        raise InputError(
            f"finite differences check the method gradient, not {explainer.metadata.method}"
        )
    x, index = np.asarray(image, np.float32), np.atleast_1d(np.asarray(target, np.int64))
    logits, pullback = _run(explainer, x, index)
    p = pullback.reshape(x.shape).astype(np.float64)
    class_ = int(index.item())
    if class_ < 0:
        class_ = int(np.argsort(-logits[0], kind="stable")[-1 - class_])

    steps = np.sqrt(np.finfo(np.float32).eps) * 2.0 ** -np.arange(10)
    offsets = np.concatenate([steps, -steps]).reshape(-1, 1, 1, 1)
    batch_target = np.full((len(offsets), *index.shape[1:]), class_)

    def along(v: Array) -> tuple[float, float]:
        v = v * (np.linalg.norm(x) or 1.0) / (np.linalg.norm(v) or 1.0)
        logits, _ = _run(explainer, (x + offsets * v).astype(np.float32), batch_target)
        ahead, behind = np.split(logits[:, class_].astype(np.float64), 2)
        differences = (ahead - behind) / (2 * steps)
        return float(np.vdot(p, v)), differences[1:][np.abs(np.diff(differences)).argmin()]

    random = np.random.default_rng(0)
    kinds: dict[str, Callable[[], Array]] = {
        "along the pullback": lambda: p * random.integers(0, 2, x.shape),
        "along noise": lambda: random.standard_normal(x.shape),
    }
    return {
        kind: DirectionalDerivatives(*np.array([along(draw()) for _ in range(directions)]).T)
        for kind, draw in kinds.items()
    }


def _run(explainer: Explainer, image: Array, target: Array) -> Explained:
    """Of normalised NCHW images, whatever the graph's layout."""
    nhwc = explainer.metadata.preprocessing.layout == "NHWC"
    explanation = explainer(np.moveaxis(image, 1, -1) if nhwc else image, target)
    return Explained(explanation.logits, explanation.pullback)


def _ratio(error: float, size: float) -> float:
    """error ÷ size; where the size is zero, 0 if the error is too and else infinite."""
    if size == 0:
        return 0.0 if error == 0 else float("inf")
    return error / size
