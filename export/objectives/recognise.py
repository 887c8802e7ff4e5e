"""Which objective a network's outputs show, or what could be asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import onnx_ir as ir

from onnxplain.errors import SourceError
from onnxplain.export.canonical.axes import batch_axes
from onnxplain.export.objectives.objective import (
    OBJECTIVES,
    Fit,
    Network,
    Objective,
    Output,
    Settings,
)
from onnxplain.export.tensors import dims

BatchAxes: TypeAlias = Mapping[ir.Value, int | None]
"""As `batch_axes` has them, of each output."""


def chosen(model: ir.Model, asked: Objective | None, settings: Settings) -> tuple[Objective, Fit]:
    """The objective asked for, or the first that is sure of the outputs of a canonical forward.

    Raises:
        SourceError: what is asked for does not fit, or nothing is sure: the message names the
            outputs with their shapes, and the objectives that fit.
    """
    outputs = list(model.graph.outputs)
    axes = dict(zip(outputs, batch_axes(model, outputs), strict=True))
    objective, fit = _chosen(model, axes, asked, settings)
    every = {str(value.name): _named(value, axis) for value, axis in axes.items()}
    return objective, replace(fit, axes={**every, **fit.axes})


def _named(value: ir.Value, batch: int | None) -> list[str]:
    return ["batch" if axis == batch else "" for axis in range(len(value.shape or ()))]


def _chosen(
    model: ir.Model, axes: BatchAxes, asked: Objective | None, settings: Settings
) -> tuple[Objective, Fit]:
    network, unclear = _network(model, axes)
    if asked is not None:
        try:
            return asked, asked.fit(network, settings)
        except SourceError as error:
            raise SourceError(f"{error}; {_listing(model, network, unclear)}") from None
    fitting = []
    for objective in OBJECTIVES.values():
        found = None if objective.fits is None else objective.fits(network, {})
        if isinstance(found, Fit):
            if found.sure:
                return objective, objective.fit(network, settings)
            fitting.append(objective)
    names = " or ".join(f"{one.name} ({one.help})" for one in fitting)
    advice = f"choose with objective=: {names}" if fitting else _NOTHING_FITS
    raise SourceError(
        "the network is no classifier, and its outputs do not tell what to explain; "
        f"{_listing(model, network, unclear)}; {advice}"
    )


_NOTHING_FITS = (
    "no objective fits them: write one (onnxplain.export.register_objective), or choose an output "
    "with output="
)


def _network(model: ir.Model, axes: BatchAxes) -> tuple[Network, list[ir.Value]]:
    """The outputs whose batch axis is known, and the others."""
    known = [
        Output(str(value.name), value, axis)
        for value, axis in axes.items()
        if axis is not None and axis >= 0 and _is_static(value, axis)
    ]
    named = {output.name for output in known}
    return Network(model.graph.inputs[0], known), [v for v in axes if v.name not in named]


def _is_static(value: ir.Value, batch: int) -> bool:
    return all(isinstance(n, int) for axis, n in enumerate(dims(value)) if axis != batch)


def _listing(model: ir.Model, network: Network, unclear: Sequence[ir.Value]) -> str:
    batches = {output.name: output.batch for output in network.outputs}
    outputs = [
        f"{value.name} {_shape(value, batches.get(str(value.name)))}"
        for value in model.graph.outputs
    ]
    text = f"its outputs: {', '.join(outputs)}"
    if unclear:
        text += (
            f"; nothing shows which axis of {', '.join(str(v.name) for v in unclear)} the batch is"
        )
    return text


def _shape(value: ir.Value, batch: int | None) -> str:
    sizes = [] if value.shape is None else list(value.shape)
    known = [n if isinstance(n, int) else "?" for n in sizes]
    named = ["N" if axis == batch else n for axis, n in enumerate(known)]
    return f"[{', '.join(map(str, named))}]"
