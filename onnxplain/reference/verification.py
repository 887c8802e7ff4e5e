"""Is an explain graph right, and what runs it? `onnxplain.verify` and the command of that name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxplain.contract.explain import LOGITS, PULLBACK
from onnxplain.errors import InputError, NoRuleError
from onnxplain.reference.answers import (
    Answer,
    classes_of,
    of_derivation,
    of_graph,
    of_graph_in_float64,
    of_pytorch,
)
from onnxplain.reference.derivatives import finite_differences
from onnxplain.reference.parity import RELATIVE_L2, Parity
from onnxplain.reference.rounding import moved_by_rounding
from onnxplain.reference.sources import is_onnx, module_of, scores_of_onnx
from onnxplain.runtime import Explainer, load
from onnxplain.runtime.inputs.batches import ImageLike, as_batch
from onnxplain.runtime.sessions import preferred
from onnxplain.runtime.verification import agreement, least_cosine, reference, sample

Array = npt.NDArray[Any]

TOLERANCE = 1e-4
"""The relative error within which an answer in float32 needs no second look."""

LOOSE = 3e-2
"""The same where there is no second look: a hard gate may open in float32 and not in float64."""

COSINES = {"lrp-epsilon": 0.99, "epsilon-plus": 0.99}
COSINE = 0.999
"""Method → the least cosine of a right graph's answer in float32; of the methods not named, COSINE.
Hard gates flip, and relevances divide by sums that may be near 0."""

ROUNDING_SPREAD, MOST_ROUNDING = 2.0, 0.1
"""Times the largest of a few draws of rounded weights that another draw may be, and the relative
error above which rounding excuses nothing."""

TOLERANCE_ALONG = 1e-2
SPREAD = {"along the pullback": 1, "along noise": 10}
"""The relative error of directional derivatives by finite differences, times that of the kind."""


@dataclass(frozen=True)
class Check:
    """One figure of a verification.

    Attributes:
        what: "logits", "pullback", …: what was compared.
        cosine: to what it should be; the least of the images' where runtimes are compared.
        relative_error: ‖found − right‖ ÷ ‖right‖, of finite differences the medians' ratio; None
            where runtimes are compared.
        max_abs: the largest difference; None likewise.
        bound: what was asked for, in words.
        passed: whether it kept that.
    """

    what: str
    cosine: float
    relative_error: float | None
    max_abs: float | None
    bound: str
    passed: bool


@dataclass(frozen=True)
class Verification:
    """What was compared with what, and how it went.

    Attributes:
        against: what was compared with what, in words.
        images: on how many images.
        checks: one for each output, and for each second look.
    """

    against: str
    images: int
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def verify(
    graph: str | os.PathLike[str],
    source: Any = None,
    *,
    weights: str = "DEFAULT",
    input: str | None = None,
    output: str | None = None,
    images: Sequence[ImageLike] | None = None,
    provider: str = "auto",
    precision: str = "float32",
    tolerance: float | None = None,
    at_least: float | None = None,
) -> Verification:
    """Check an explain graph, or what runs it.

    With a source: against the independent PyTorch reference in float64, by the method and the
    parameters that the file names. Where that cannot be (an `.onnx` file, TorchScript, an operation
    or a layer that the reference does not know), against a fresh derivation evaluated in float64,
    and an `.onnx` file's logits against the file itself. An answer that misses the tolerance in
    float32 is looked at again in float64, where rounding opens no gate.

    Without a source: another provider or precision than ONNX Runtime's float32 on the CPU against
    that; and a `gradient` graph against finite differences of its own logits.

    Args:
        graph: the file of an explain graph.
        source: the network that it was exported from, as `onnxplain.export` takes it.
        weights: for a network by name, as for `onnxplain.export`.
        input, output: names of the image and the logits, where an `.onnx` source has several.
        images: what to compare on, as for `Explainer.__call__`; seeded noise where there are none.
        provider, precision: what runs the graph, as for `onnxplain.load`; "auto" takes the first
            that is here, whether or not it is right.
        tolerance: the largest relative error, and no second look. By default 1e-4, and in float64
            1e-3 or what rounding the weights makes of it; of finite differences 1e-2, and ten times
            that along noise.
        at_least: the least cosine of a provider or precision to ONNX Runtime's float32 on the CPU.

    Returns:
        The figures, and whether they are what they should be: `.passed`.

    Raises:
        InputError: no source where one is needed, one with other classes, images that cannot be
            used, the precision "auto".
        SourceError: the source cannot be read or exported.
        BackendError: the graph is not an explain graph, or what is to run it is not here.
    """
    if precision == "auto":
        raise InputError("verify checks one precision: name it, or see `onnxplain explain --help`")
    # `auto` has what it takes checked already, and would go past one that is wrong.
    name = next(preferred(precision), "cpu") if provider == "auto" else provider
    explainer = load(graph, name, precision)
    if source is not None:
        options = {"weights": weights, "input": input, "output": output}
        question = _Question.of(explainer, graph, images, tolerance, at_least)
        return _against_source(question, source, options)
    if (name, precision) != ("cpu", "float32"):
        return _against_onnx_runtime(explainer, graph, images, at_least)
    if explainer.metadata.method == "gradient":
        batch = _batch(explainer, images)[:1]
        checks = tuple(_differences(explainer, batch, tolerance))
        return Verification("against finite differences of its own logits", 1, checks)
    raise InputError(
        f"a {explainer.metadata.method!r} graph is checked against what it was exported from: say "
        "which network that is with --source (and --weights)"
    )


# ----- against the source -----


@dataclass(frozen=True)
class _Question:
    """What is asked of the graph, what it answers, and what is asked of the answer."""

    explainer: Explainer
    graph: str | os.PathLike[str]
    images: Array
    classes: Array
    answer: Answer
    tolerance: float | None
    at_least: float | None

    @classmethod
    def of(
        cls,
        explainer: Explainer,
        graph: str | os.PathLike[str],
        images: Sequence[ImageLike] | None,
        tolerance: float | None,
        at_least: float | None,
    ) -> _Question:
        batch = _batch(explainer, images)
        targets = _predicted(explainer, len(batch))
        answer = of_graph(explainer, batch, targets)
        classes = classes_of(targets, answer.logits)
        return cls(explainer, graph, batch, classes, answer, tolerance, at_least)

    @property
    def least(self) -> float:
        """The cosine that an answer in this precision must have."""
        if self.at_least is not None:
            return self.at_least
        inexact = COSINES.get(self.explainer.metadata.method, COSINE)
        return min(inexact, least_cosine(self.explainer.backend.precision))

    @property
    def is_float32(self) -> bool:
        return least_cosine(self.explainer.backend.precision) >= least_cosine("float32")


def _against_source(question: _Question, source: Any, options: dict[str, Any]) -> Verification:
    metadata, images, classes = question.explainer.metadata, question.images, question.classes
    pre = metadata.preprocessing
    module, why = None, "the source is an ONNX file"
    if not is_onnx(source):
        module = module_of(source, options["weights"], (pre.height, pre.width), metadata.method)
        why = "the source is a program, which does not show all that the method must know"
    right = None
    if module is not None:
        try:
            right = of_pytorch(metadata, module, images, classes)
        except (InputError, NoRuleError) as error:
            module, why = None, str(error)
    if right is None:
        right = of_derivation(metadata, source, options, images, classes)
    against = "against PyTorch in float64"
    if module is None:
        against = f"against a fresh derivation in float64: {why}"
    parity = question.answer.parity(right)
    checks = [
        _logits(question, source, options["input"], parity[LOGITS]),
        *_pullback(question, parity[PULLBACK], right, module),
    ]
    if is_onnx(source) and metadata.method == "gradient":
        checks += _differences(question.explainer, images[:1], question.tolerance)
    return Verification(against, len(images), tuple(checks))


def _logits(question: _Question, source: Any, input: str | None, parity: Parity) -> Check:
    """An ONNX file's against the file itself, whatever it makes of its logits in the end."""
    if is_onnx(source):
        logits = question.answer.logits
        nhwc = question.explainer.metadata.preprocessing.layout == "NHWC"
        images = np.moveaxis(question.images, 1, -1) if nhwc else question.images
        scores = scores_of_onnx(source, images, logits.shape[1], input)
        found = [Parity.of(end, y) for y in scores for end in _ends(logits)]
        parity = min(found, key=lambda each: each.relative_l2, default=parity)
    if question.is_float32 or question.tolerance is not None:
        return _by_error(LOGITS, parity, question.tolerance or TOLERANCE)
    return _by_cosine(LOGITS, parity, question.least)


def _ends(logits: Array) -> Iterator[Array]:
    """What a classifier may end in: its logits, and what is made of them."""
    yield logits
    logits = logits.astype(np.float64)
    log_softmax = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    yield from (log_softmax, np.exp(log_softmax), 0.5 + 0.5 * np.tanh(0.5 * logits))


def _pullback(question: _Question, parity: Parity, right: Answer, module: Any) -> Iterator[Check]:
    """In float32; and where that alone does not tell, the same file in float64."""
    if question.tolerance is not None:
        yield _by_error(PULLBACK, parity, question.tolerance)
        return
    if question.is_float32 and parity.relative_l2 <= TOLERANCE:
        yield _by_error(PULLBACK, parity, TOLERANCE)
        return
    metadata = question.explainer.metadata
    asked = question.images, question.classes
    try:
        exact = of_graph_in_float64(question.graph, metadata, *asked)
    except Exception:  # whatever an operator that NumPy has to play may raise
        yield _by_error(PULLBACK, parity, LOOSE)
        return
    yield _by_cosine(PULLBACK, parity, question.least)
    found, limit = Parity.of(exact.pullback, right.pullback), RELATIVE_L2
    if found.relative_l2 > limit and module is not None:
        moved = moved_by_rounding(
            lambda rounded: of_pytorch(metadata, rounded, *asked).pullback, module, right.pullback
        )
        limit = max(limit, min(ROUNDING_SPREAD * moved, MOST_ROUNDING))
    yield _by_error(f"{PULLBACK}, the file in float64", found, limit)


def _by_error(what: str, parity: Parity, limit: float) -> Check:
    bound, passed = f"relative error ≤ {limit:.2g}", parity.relative_l2 <= limit
    return Check(what, parity.cosine, parity.relative_l2, parity.max_abs, bound, passed)


def _by_cosine(what: str, parity: Parity, least: float) -> Check:
    bound, passed = f"cosine ≥ {least:g}", parity.cosine >= least
    return Check(what, parity.cosine, parity.relative_l2, parity.max_abs, bound, passed)


# ----- without a source -----


def _against_onnx_runtime(
    explainer: Explainer,
    graph: str | os.PathLike[str],
    images: Sequence[ImageLike] | None,
    at_least: float | None,
) -> Verification:
    right, backend = reference(graph), explainer.backend
    found = agreement(explainer, right, sample(right, images))
    least = least_cosine(backend.precision) if at_least is None else at_least
    checks = tuple(
        Check(what, cosine, None, None, f"cosine ≥ {least:g}", cosine >= least)
        for what, cosine in ((LOGITS, found.logits), (PULLBACK, found.pullback))
    )
    against = (
        f"{backend.name} on {backend.device} in {backend.precision} against ONNX Runtime on the "
        "CPU in float32"
    )
    return Verification(against, found.images, checks)


def _differences(explainer: Explainer, images: Array, tolerance: float | None) -> Iterator[Check]:
    """The gradient against what the logits do."""
    target = _predicted(explainer, len(images))
    for kind, derivatives in finite_differences(explainer, images, target).items():
        limit = (TOLERANCE_ALONG if tolerance is None else tolerance) * SPREAD[kind]
        parity, error = Parity.of(*derivatives), derivatives.relative_error
        bound = f"median error ≤ {limit:g}"
        yield Check(kind, parity.cosine, error, parity.max_abs, bound, error <= limit)


def _batch(explainer: Explainer, images: Sequence[ImageLike] | None) -> Array:
    """Normalised images, float32 [N, C, H, W]."""
    pre = explainer.metadata.preprocessing
    if images is None:
        shape = (explainer.backend.signature.batch or 3, pre.channels, pre.height, pre.width)
        return np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    batch, _ = as_batch(images, pre, np.dtype(np.float32))
    return np.moveaxis(batch, -1, 1) if pre.layout == "NHWC" else batch


def _predicted(explainer: Explainer, images: int) -> Array:
    return np.full((images, 1) if explainer.multi_target else images, -1)
