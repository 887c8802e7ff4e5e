"""An explain graph against the network that it was exported from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxplain.contract.explain import LOGITS, PULLBACK, RELEVANCE
from onnxplain.reference.answers import (
    Answer,
    classes_of,
    derivation,
    estimated,
    graph_in_float64,
    of_graph,
    of_pytorch,
)
from onnxplain.reference.checks import Check, Verification, by_cosine, by_error
from onnxplain.reference.derivatives import STEPPED, check_derivatives, is_quantised
from onnxplain.reference.forward import turned
from onnxplain.reference.logits import of_file
from onnxplain.reference.parity import RELATIVE_L2, Parity
from onnxplain.reference.rounding import moved_by_rounding
from onnxplain.reference.sources import is_onnx, module_of
from onnxplain.runtime import Explainer
from onnxplain.runtime.verification import least_cosine

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]

TOLERANCE = 1e-4
"""The relative error within which an answer in float32 needs no second look."""

LOOSE = 3e-2
"""The same where there can be no second look: a gate may open in float32 and not in float64."""

COSINE, OF_SMALL_SUMS = 0.999, 0.99
"""The least cosine of a right graph's answer in float32, and that of relevances which divide by
sums that may be near 0: hard gates flip."""

ROUNDING_SPREAD, MOST_ROUNDING = 2.0, 0.1
"""Times the largest of a few draws of rounded weights that another draw may be, and the relative
error above which rounding excuses nothing."""


@dataclass(frozen=True)
class Asked:
    """What is asked: of which graph, about which images, and how right the answer must be.

    Attributes:
        images: normalised float32 [N, C, H, W].
        targets: int64 [N] or [N, K], as the graph takes them.
    """

    explainer: Explainer
    graph: str | os.PathLike[str]
    images: Array
    targets: Array
    tolerance: float | None
    at_least: float | None

    @property
    def least(self) -> float:
        """The cosine that an answer in this precision must have."""
        if self.at_least is not None:
            return self.at_least
        metadata = self.explainer.metadata
        small = metadata.kind == RELEVANCE and metadata.method != "lrp-zplus"
        inexact = OF_SMALL_SUMS if small else COSINE
        precision = "int8" if self.is_quantised else self.explainer.backend.precision
        return min(inexact, least_cosine(precision))

    @cached_property
    def is_quantised(self) -> bool:
        """Whether float32's rounding may decide between two integers in the graph."""
        return is_quantised(self.graph)

    def in_float64(self, classes: Array) -> Answer:
        """The graph's answer for classes ≥ 0, evaluated in float64."""
        return graph_in_float64(self.graph, self.explainer.metadata)(self.images, classes)

    @property
    def is_float32(self) -> bool:
        return least_cosine(self.explainer.backend.precision) >= least_cosine("float32")


@dataclass(frozen=True)
class Right:
    """The right answer.

    Attributes:
        module: the PyTorch network that gave it, if one did.
        by: who gave it, in words.
    """

    answer: Answer
    module: nn.Module | None
    by: str


def verify_against_source(asked: Asked, source: Any, options: dict[str, Any]) -> Verification:
    """Compare the graph's answers with those of its source.

    Args:
        source, options: as `onnxplain.export` takes them ("weights", "input", "output").

    Raises:
        InputError: the source has other classes.
        SourceError: it cannot be read or exported.
    """
    answer = of_graph(asked.explainer, asked.images, asked.targets)
    classes = classes_of(asked.targets, answer.logits)
    right = _right(asked, source, options, classes)
    parity = answer.parity(right.answer)
    logits = [_logits(asked, parity[LOGITS])]
    if is_onnx(source):
        of_file = _logits_of_file(asked, source, options["input"], answer.logits)
        logits += [] if of_file is None else [_logits(asked, of_file)]
    worse = next((check for check in logits if not check.passed), logits[0])
    checks = [worse, *_logits_in_float64(asked, right, classes)]
    checks += _pullback(asked, parity[PULLBACK], right, classes)
    estimates = bool(asked.explainer.metadata.estimator.name)
    gradient = asked.explainer.metadata.method == "gradient" and is_onnx(source) and not estimates
    if gradient and not asked.is_quantised:
        first = asked.images[:1], asked.targets[:1]
        checks += check_derivatives(asked.explainer, *first, asked.tolerance)
    notes = (STEPPED,) if gradient and asked.is_quantised else ()
    return Verification(f"against {right.by}", len(asked.images), tuple(checks), notes=notes)


def _right(asked: Asked, source: Any, options: dict[str, Any], classes: Array) -> Right:
    """PyTorch's where it can be had, else that of a fresh derivation."""
    metadata, why = asked.explainer.metadata, "the source is an ONNX file"
    if not is_onnx(source):
        size = metadata.preprocessing.height, metadata.preprocessing.width
        module = module_of(source, options["weights"], size, metadata.method)
        why = "the source is a program, which does not show all that the method must know"
        if module is not None:
            by_pytorch = partial(of_pytorch, metadata, module, classes=classes)
            try:
                answer = estimated(asked.explainer, by_pytorch, asked.images)
                return Right(answer, module, "PyTorch in float64")
            except Exception as error:  # whatever a network may raise that the reference can't run
                why = str(error)

    height, width = asked.images.shape[2:]
    answering = derivation(metadata, source, options, classes.ndim == 2, (height, width))
    answer = estimated(asked.explainer, lambda x: answering(x, classes), asked.images)
    return Right(answer, None, f"a fresh derivation in float64: {why}")


def _logits_of_file(asked: Asked, source: str, input: str | None, logits: Array) -> Parity | None:
    nhwc = asked.explainer.metadata.preprocessing.layout == "NHWC"
    images = np.moveaxis(asked.images, 1, -1) if nhwc else asked.images
    return of_file(turned(asked.explainer.metadata, images), source, input, logits)


def _logits(asked: Asked, parity: Parity) -> Check:
    if asked.tolerance is None and (asked.is_quantised or not asked.is_float32):
        return by_cosine(LOGITS, parity, asked.least)
    return by_error(LOGITS, parity, TOLERANCE if asked.tolerance is None else asked.tolerance)


def _logits_in_float64(asked: Asked, right: Right, classes: Array) -> Iterator[Check]:
    """Of a quantised graph, whose logits in float32 may be off by an integer here and there."""
    if asked.is_quantised and asked.tolerance is None:
        with suppress(Exception):  # whatever an operator that NumPy has to play may raise
            found = Parity.of(asked.in_float64(classes).logits, right.answer.logits)
            yield by_error(f"{LOGITS}, the file in float64", found, RELATIVE_L2)


def _pullback(asked: Asked, parity: Parity, right: Right, classes: Array) -> Iterator[Check]:
    """As the runtime gives it; and where that alone does not tell, the same file in float64."""
    limit = TOLERANCE if asked.tolerance is None else asked.tolerance
    if asked.tolerance is not None or (asked.is_float32 and parity.relative_l2 <= limit):
        yield by_error(PULLBACK, parity, limit)
        return
    metadata = asked.explainer.metadata
    try:
        exact = asked.in_float64(classes).pullback
    except Exception:  # whatever an operator that NumPy has to play may raise
        yield by_error(PULLBACK, parity, LOOSE)
        return
    yield by_cosine(PULLBACK, parity, asked.least)
    found, limit = Parity.of(exact, right.answer.pullback), RELATIVE_L2
    if found.relative_l2 > limit and right.module is not None:
        moved = moved_by_rounding(
            lambda module: of_pytorch(metadata, module, asked.images, classes).pullback,
            right.module,
            right.answer.pullback,
        )
        limit = max(limit, min(ROUNDING_SPREAD * moved, MOST_ROUNDING))
    yield by_error(f"{PULLBACK}, the file in float64", found, limit)
