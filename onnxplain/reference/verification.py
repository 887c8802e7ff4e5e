"""Is an explain graph right, and what runs it? `onnxplain.verify` and the command of that name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxplain.contract.explain import LOGITS, PULLBACK
from onnxplain.contract.pixels import Pixels
from onnxplain.errors import InputError
from onnxplain.files import scratch
from onnxplain.reference.against_source import Asked, verify_against_source
from onnxplain.reference.checks import Check, Verification
from onnxplain.reference.derivatives import check_derivatives, is_quantised
from onnxplain.reference.objectives import verify_objective
from onnxplain.reference.seen import behind, check_seen
from onnxplain.reference.values import verify_values
from onnxplain.runtime import Explainer, load
from onnxplain.runtime.inputs.batches import ImageLike, as_batch
from onnxplain.runtime.sessions import preferred
from onnxplain.runtime.verification import (
    agreement_of_values,
    least_agreement,
    least_cosine,
    reference,
    samples,
)

Array = npt.NDArray[Any]


def verify(
    graph: str | os.PathLike[str],
    source: Any = None,
    *,
    weights: str = "DEFAULT",
    input: str | None = None,
    output: str | None = None,
    objective: Any = None,
    images: Sequence[ImageLike] | None = None,
    provider: str = "auto",
    precision: str = "float32",
    tolerance: float | None = None,
    at_least: float | None = None,
) -> Verification:
    """Check an explain graph, or what runs it.

    With a source: against the independent PyTorch reference in float64, by the method and the
    parameters that the file names. Where that cannot be (an `.onnx` file, TorchScript, an operation
    or a layer that the reference does not know), against a fresh derivation evaluated in float64.
    As that has our own rules, its outputs are then also compared with what the source puts out, and
    a `gradient` with finite differences of what it is the gradient of. An answer that misses the
    tolerance in float32 is looked at again in float64, where rounding opens no gate.

    Of a file that takes photographs, or quantises its pullback, what it makes of them is compared
    with Pillow's, and the graph behind that with the source.

    Without a source: another provider or precision than ONNX Runtime's float32 on the CPU against
    that; and a `gradient` graph against finite differences of its own logits.

    Args:
        graph: the file of an explain graph.
        source: the network that it was exported from, as `onnxplain.export` takes it.
        weights: for a network by name, as for `onnxplain.export`.
        input, output: names of the image and the logits, where an `.onnx` source has several.
        objective: where that was an ONNX file, a function or an object: that, as
            `onnxplain.export` took it.
        images: what to compare on, as for `Explainer.__call__`; seeded noise where there are none.
        provider, precision: what runs the graph, as for `onnxplain.load`; "auto" takes the first
            that is here, whether or not it is right.
        tolerance: the largest relative error, and no second look. By default 1e-4, and in float64
            1e-3 or what rounding the weights makes of it; of finite differences 1e-2, and ten times
            that along noise.
        at_least: the least cosine of a provider or precision to ONNX Runtime's float32 on the CPU,
            or to the source; by default that of the precision.

    Returns:
        The figures, and whether they are what they should be: `.passed`.

    Raises:
        InputError: no source or objective where one is needed, a source with other classes, images
            that cannot be used, the precision "auto".
        SourceError: the source cannot be read or exported.
        BackendError: the graph is not an explain graph, or what is to run it is not here.
    """
    if precision == "auto":
        raise InputError("verify checks one precision: name it, or see `onnxplain explain --help`")
    # `auto` has what it takes checked already, and would go past one that is wrong.
    name = next(preferred(precision), "cpu") if provider == "auto" else provider
    explainer = load(graph, name, precision)
    method = explainer.metadata.method
    if source is None and (name, precision) != ("cpu", "float32"):
        return _against_onnx_runtime(explainer, graph, images, at_least)
    if explainer.metadata.pixels != Pixels():
        checks = check_seen(explainer, graph, images)
        same: dict[str, Any] = {
            "weights": weights,
            "input": input,
            "output": output,
            "objective": objective,
        }
        bounds: dict[str, Any] = {"tolerance": tolerance, "at_least": at_least}
        with scratch() as folder:
            own = behind(graph, folder)
            found = verify(
                own, source, images=images, provider=name, precision=precision, **same, **bounds
            )
        return replace(found, checks=(*checks, *found.checks))
    of_class = explainer.metadata.objective.is_class
    if source is None and not of_class:
        raise InputError(
            f"objective {explainer.metadata.objective.name!r} holds some of what it computes "
            "constant, which finite differences do not: say with source= which network the graph "
            "was exported from"
        )
    estimator = explainer.metadata.estimator.name
    if estimator and not of_class:
        raise InputError(f"verify checks {estimator!r} of classifiers alone so far")
    if source is None and (estimator or method != "gradient"):
        raise InputError(
            f"a graph of {estimator or method!r} is checked against what it was exported from: say "
            "which network that is with source= (and weights=)"
        )
    if source is None and is_quantised(graph):
        raise InputError(
            "a quantised graph rises in steps, which finite differences do not follow: check it "
            "against what it was exported from, with source="
        )
    options = {"weights": weights, "input": input, "output": output}
    if not of_class:
        options["objective"] = _objective(explainer, objective)
    elif objective is not None:
        raise InputError("the graph explains a class: leave objective= out")
    if explainer.metadata.values:
        if source is None:
            raise InputError("say with source= which network the graph was exported from")
        return verify_values(explainer, source, options, tolerance)
    batch = _batch(explainer, images)
    if not of_class:
        return verify_objective(explainer, source, options, batch, tolerance)
    targets = np.full((len(batch), 1) if explainer.multi_target else len(batch), -1)
    if source is None:
        checks = check_derivatives(explainer, batch[:1], targets[:1], tolerance)
        return Verification("against finite differences of its own logits", 1, tuple(checks))
    asked = Asked(explainer, graph, batch, targets, tolerance, at_least)
    return verify_against_source(asked, source, options)


def _objective(explainer: Explainer, given: Any) -> Any:
    """
    Raises:
        InputError: none is given, and the file's has no name that an export knows.
    """
    from onnxplain.export import OBJECTIVES

    name = explainer.metadata.objective.name
    if given is None and name not in OBJECTIVES:
        raise InputError(
            f"objective {name!r} is none that is known by its name: give the ONNX file, or in "
            "Python the function or object, that the graph was exported with, as objective="
        )
    return name if given is None else given


def _against_onnx_runtime(
    explainer: Explainer,
    graph: str | os.PathLike[str],
    images: Sequence[ImageLike] | None,
    at_least: float | None,
) -> Verification:
    right, backend = reference(graph), explainer.backend
    if explainer.metadata.values and images is None:
        found = agreement_of_values(explainer, right)
    else:
        found = least_agreement(explainer, right, samples(right, images))
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


def _batch(explainer: Explainer, images: Sequence[ImageLike] | None) -> Array:
    """Normalised images, float32 [N, C, H, W]; seeded noise where there are none."""
    pre = explainer.metadata.preprocessing
    if images is None:
        shape = (explainer.backend.signature.batch or 3, pre.channels, pre.height, pre.width)
        return np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    batch, _ = as_batch(images, pre, np.dtype(np.float32))
    return np.moveaxis(batch, -1, 1) if pre.layout == "NHWC" else batch
