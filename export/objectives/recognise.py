"""Which objective a network's outputs show, or what could be asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import onnx_ir as ir

from onnxplain.contract.explain import IMAGE
from onnxplain.errors import SourceError
from onnxplain.export.canonical.axes import NONE, batch_axes
from onnxplain.export.canonical.ends import is_whole, like_an_image
from onnxplain.export.objectives.objective import (
    OBJECTIVES,
    Fit,
    Network,
    Objective,
    Output,
    Settings,
)
from onnxplain.export.tensors import dims, usual

BatchAxes: TypeAlias = Mapping[ir.Value, int | None]
"""As `batch_axes` has them, of each output."""


def chosen(
    model: ir.Model,
    asked: Objective | None,
    settings: Settings,
    labels: Sequence[str] = (),
    explained: ir.Value | None = None,
) -> tuple[Objective, Fit]:
    """The objective asked for, or the first that is sure of the outputs of a canonical forward.

    Args:
        labels: the names of classes, where there are any.
        explained: what it is explained by; the image unless given.

    Raises:
        SourceError: what is asked for does not fit, or nothing is sure: the message names the
            outputs with their shapes, and the objectives that fit.
    """
    outputs = list(model.graph.outputs)
    axes = dict(zip(outputs, batch_axes(model, outputs), strict=True))
    image = _image_of(model.graph, explained or model.graph.inputs[0])
    network = _network(image, axes, labels)
    objective, fit = _chosen(network, _listing(model.graph, axes, network), asked, settings)
    every = {str(value.name): _named(value, axis) for value, axis in axes.items()}
    return objective, replace(fit, axes={**every, **fit.axes})


def _image_of(graph: ir.Graph, explained: ir.Value) -> ir.Value:
    """The image in whose pixels outputs are, if there is one: what it is explained by, or beside a
    value within or another input, the only input that is like an image."""
    images = [x for x in graph.inputs if like_an_image(x)]
    return images[0] if len(images) == 1 else explained


def _named(value: ir.Value, batch: int | None) -> list[str]:
    return ["batch" if axis == batch else "" for axis in range(len(value.shape or ()))]


def _chosen(
    network: Network, listing: str, asked: Objective | None, settings: Settings
) -> tuple[Objective, Fit]:
    if asked is not None:
        try:
            asked = asked.of(network)
            return asked, asked.fit(network, settings)
        except SourceError as error:
            raise SourceError(f"{error}; {listing}") from None
    fitting = []
    for objective in OBJECTIVES.values():
        own = objective.own(settings)
        found = None if objective.fits is None or own is None else objective.fits(network, own)
        if isinstance(found, Fit):
            if found.sure:
                return objective, objective.fit(network, settings)
            in_short = ", ".join(one.asked() for one in objective.unshown(found))
            more = f"; with the settings {in_short}" if in_short else ""
            fitting.append(f"{objective.name} ({objective.help}, as {found.why}{more})")
    names = ", or ".join(fitting)
    advice = f"choose with objective=: {names}" if fitting else _NOTHING_FITS
    raise SourceError(
        "the network is no classifier, and its outputs do not tell what to explain; "
        f"{listing}; {advice}"
    )


_NOTHING_FITS = (
    "no objective fits them: write one (onnxplain.export.register_objective), or choose an output "
    "with output="
)


def _network(image: ir.Value, axes: BatchAxes, labels: Sequence[str]) -> Network:
    """The outputs whose batch axis is known, and all other sizes, at least for a usual image."""
    known = [
        Output(str(value.name), value, axis)
        for value, axis in axes.items()
        if axis is not None and axis >= 0 and _is_static(value, axis) and not is_whole(value)
    ]
    return Network(image, known, labels)


def _is_static(value: ir.Value, batch: int) -> bool:
    return all(n is not None for axis, n in enumerate(usual(value)) if axis != batch)


def _listing(graph: ir.Graph, axes: BatchAxes, network: Network) -> str:
    """The outputs with their shapes, and why those that the network lacks are not explained."""
    outputs = [f"{value.name} {_shape(value, batch)}" for value, batch in axes.items()]
    text = f"its outputs: {', '.join(outputs)}"
    named = {output.name for output in network.outputs}
    others = [v for v in axes if v.name not in named and not is_whole(v)]
    unclear = [str(v.name) for v in others if axes[v] in (None, NONE)]
    if unclear:
        text += f"; nothing shows which axis of {', '.join(unclear)} the batch is"
    opened = [str(v.name) for v in others if v.name not in unclear]
    if opened:
        text += f"; {', '.join(opened)} has other open sizes than the batch's"
        sizes = dict.fromkeys(str(n) for x in graph.inputs for n in dims(x)[1:] if _is_open(n))
        if sizes:
            by = "size" if network.image.name == IMAGE else "sizes"
            text += f", which {by}= fixes: {', '.join(sizes)}"
    return text


def _is_open(size: int | ir.SymbolicDim) -> bool:
    return not isinstance(size, int)


def _shape(value: ir.Value, batch: int | None) -> str:
    sizes = [] if value.shape is None else list(value.shape)
    known = [n if isinstance(n, int) else n.value or "?" for n in sizes]
    named = ["N" if axis == batch else n for axis, n in enumerate(known)]
    return f"[{', '.join(map(str, named))}]"
