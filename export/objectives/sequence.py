"""Classes along a sequence: recognisers of text (CTC) and taggers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.objective import EXPLAINED_CLASS, INDEX, NO_CLASS
from onnxplain.export.objectives.objective import (
    Emitted,
    Fit,
    Input,
    Network,
    Objective,
    Output,
    Setting,
    Settings,
    register_objective,
)
from onnxplain.export.objectives.reading import (
    ending,
    in_range,
    is_channels,
    mean_over,
    one_hot_row,
)
from onnxplain.export.tensors import integers, size_of

_LAYOUTS = {"NTC": ["time", "class"], "NCT": ["class", "time"]}


def fits(network: Network, settings: Settings) -> Fit | str:
    for output in network.outputs:
        if len(output.sizes) != 2 or 1 in output.sizes:
            continue
        found = {"NTC": "", "NCT": ""}
        for layout, named in _LAYOUTS.items():
            axes = [*named[: output.batch], "batch", *named[output.batch :]]
            found[layout] = ending(output.value, axes.index("class")).activation
        # Sigmoids end any layout; a Softmax is over the classes, as are a convolution's channels.
        of_classes = _LAYOUTS["NCT"].index("class")
        channels = is_channels(output.value, of_classes + (of_classes >= output.batch))
        shown = "softmax" in found.values()
        layout = "NCT" if found["NCT"] == "softmax" or (channels and not shown) else "NTC"
        layout = settings.get("layout", layout)
        axes = list(_LAYOUTS[layout])
        steps, classes = (output.sizes[axes.index(axis)] for axis in ("time", "class"))
        axes.insert(output.batch, "batch")
        return Fit(
            {"steps": output},
            {output.name: axes},
            f"{output.name} is a sequence of {steps} steps with {classes} classes each",
            _is_shown(output, steps, found[layout], network),
            classes,
            classes,
            limits={"position": steps},
            settings={"blank": "first", **settings, "layout": layout},
            activation=found[layout],
            no_class="what is read",
        )
    return "no output is [N, T, C] or [T, N, C]"


def _is_shown(output: Output, steps: int, activation: str, network: Network) -> bool:
    """A Softmax ends each step, or time is the first axis; and no other output has as many of
    something, as boxes beside their classes."""
    others = [one for one in network.outputs if one is not output and len(one.sizes) == 2]
    alone = all(steps not in one.sizes for one in others)
    return alone and (activation == "softmax" or output.batch == 1)


def emit(op: OpBuilder, fit: Fit, inputs: Mapping[str, ir.Value]) -> Emitted:
    """y_tc at the position t; or its mean over the steps of the path where something is read.

    Those are the steps at which another class than the blank is predicted; with a class chosen,
    those at which it is; where there are none, all steps. A negative class counts from the top of
    the ranking at each step.
    """
    target, position = inputs["target"], inputs["position"]
    y = _steps(op, fit)  # [N, T, C]
    steps, classes = size_of(y, 1), size_of(y, 2)
    _, ranking = op.TopK(y, [classes], _outputs=2)
    each = op.Expand(op.Unsqueeze(op.Sub(-1, target), [1, 2]), [1, steps, 1])
    by_rank = op.Squeeze(op.GatherElements(ranking, each, axis=2), [2])
    is_rank = op.Unsqueeze(op.Less(target, 0), [1])
    chosen = op.Where(is_rank, by_rank, op.Unsqueeze(target, [1]))  # [N, T]
    hot = op.Equal(op.Unsqueeze(chosen, [2]), integers(op, np.arange(classes)))
    logit = op.ReduceSum(op.Mul(y, op.CastLike(hot, y)), [2], keepdims=0)

    best = op.ArgMax(y, axis=2, keepdims=0)
    blank = {"first": 0, "last": classes - 1, "none": -1}[fit.settings["blank"]]
    reads = op.CastLike(op.Not(op.Equal(best, blank)), y)
    agrees = op.CastLike(op.Equal(best, op.Unsqueeze(target, [1])), y)
    path = mean_over(op, logit, op.Where(is_rank, reads, agrees))
    at = one_hot_row(op, in_range(op, op.Max(position, 0), steps, y), steps, y)
    there = op.ReduceSum(op.Mul(logit, at), [1], keepdims=0)
    of_path = op.Where(op.Less(target, 0), NO_CLASS, target)
    place = op.Unsqueeze(op.Max(position, 0), [1])
    of_step = op.Squeeze(op.GatherElements(chosen, place, axis=1), [1])
    along = op.Less(position, 0)
    found = {EXPLAINED_CLASS: op.Where(along, of_path, of_step)}
    return op.Where(along, path, there), found


def _steps(op: OpBuilder, fit: Fit) -> ir.Value:
    output = fit.outputs["steps"]
    end = ending(output.value, list(fit.axes[output.name]).index("class"))
    y = output.with_batch_first(op, end.logits(op))
    return op.Transpose(y, perm=[0, 2, 1]) if fit.settings["layout"] == "NCT" else y


register_objective(
    Objective(
        "sequence",
        "a class's logit at a position, or along the text that is read",
        fits,
        emit,
        (
            Input("target", "the class; -1 is the predicted one at each step", INDEX, -1),
            Input("position", "the step, from 0; -1 is the mean along what is read", INDEX, -1),
        ),
        (
            Setting(
                "layout",
                "which axis behind the batch is time, and which the classes",
                tuple(_LAYOUTS),
            ),
            Setting("blank", "which class of CTC reads nothing", ("first", "last", "none")),
        ),
        whole=True,
    )
)
