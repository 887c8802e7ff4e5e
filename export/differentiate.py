"""Derivatives of any ONNX file, added to it: from outputs to values, without a framework."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import onnx_ir as ir

from onnxplain.building import Builder
from onnxplain.comparison import OUTPUT_COMPARISONS
from onnxplain.contract import derivatives as contract
from onnxplain.contract.derivatives import DifferentiateOptions
from onnxplain.errors import InputError
from onnxplain.export.budget import within
from onnxplain.export.canonical.ends import rename
from onnxplain.export.canonical.ports import Forward, forward_between, join, narrow
from onnxplain.export.compared import compared
from onnxplain.export.derivatives import Differentiation, nothing_flows
from onnxplain.export.describe import on_processor
from onnxplain.export.finish import clean, written
from onnxplain.export.guard import own_errors
from onnxplain.export.lower import lower, stay_on_gpu
from onnxplain.export.sources.source import from_onnx
from onnxplain.files import writable
from onnxplain.options import by_keyword, check
from onnxplain.version import __version__

STAGES = (
    *("reading the network", "canonical forward", "derivatives", "checking", "writing"),
    "comparing with the network",
)
"""What `progress` is told of, in this order."""


@by_keyword(DifferentiateOptions)
def differentiate(
    source: str | os.PathLike[str], path: str | os.PathLike[str], options: DifferentiateOptions
) -> contract.Derivatives:
    """Add derivatives to an ONNX file: of any of its values by any others.

    The new file has all the inputs and outputs of the old, under their names, with their open
    sizes, and besides:

    - an output `grad.X` for each X of `wrt`, of its shape: the gradient of the sum of `of`; with
      `seed="input"`, the vector–Jacobian product with the inputs `seed.Y`, each of the shape of
      the Y of `of`;
    - with `jacobian`, instead, an output `jacobian.Y.X` for each pair;
    - with `second`, besides, an output `hvp.X`, the Hessian times the inputs `direction.X`.

    What the file computes in half precision is computed in float32, as are its derivatives and
    what they take; a float64 file has them in float64.

    Args:
        source: an ONNX file.
        path: the ONNX file to write. An existing file is replaced once the new one is complete.
        options:

    Returns:
        What the file says of itself: `inputs` and `outputs` are those added, in words, `notes`
        what else is good to know.

    Raises:
        SourceError: the network cannot be read; no such value, one of whole numbers, or one that
            `of` does not depend on; a Jacobian of too many rows; `NoRuleError` names an operator.
            Or the outputs are others than the network's own.
        InputError: an option is of another type than declared, or excludes another; the source is
            no path; or the path cannot be written, or is the source itself.
    """
    check(options)
    _check_together(options)
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"differentiate takes an ONNX file's path, not a {type(source).__name__}: "
            "torch.onnx.export writes one of a module"
        )
    path = writable(path, source)
    tell = options.progress

    tell(STAGES[0])
    found = from_onnx(source)
    model, props = found.model, dict(found.model.metadata_props)

    tell(STAGES[1])
    with within(options.budget), own_errors("differentiated"):
        forward = forward_between(
            model, _names(options.of), _names(options.wrt), options.sizes or {}
        )

        tell(STAGES[2])
        model = forward.model
        made = add_derivatives(forward, options)
        if not made.outputs:
            raise nothing_flows(forward.wrt, forward.of)
        clean(model)

    tell(STAGES[3])
    entry = contract.Derivatives(
        version=__version__,
        source=found.name,
        of=tuple(forward.of),
        wrt=tuple(made.wrt),
        seed=options.seed,
        inputs=made.inputs,
        outputs=made.outputs,
        notes=tuple(on_processor(model.graph)),
    )
    model.producer_name, model.producer_version = "onnxplain", __version__
    kept = {key: value for key, value in props.items() if not key.startswith("onnxplain.")}
    model.metadata_props.update({**kept, **entry.to_props()})
    with (
        own_errors("differentiated"),
        written(model, path, lambda: tell(STAGES[4])) as file,
    ):
        if options.check:
            tell(STAGES[5])
            given = file, Path(source)
            each = (partial(compare, *given) for compare in OUTPUT_COMPARISONS)
            notes = compared(path, each, "differentiated")
            entry = replace(entry, notes=(*entry.notes, *notes))
    return entry


def _check_together(options: DifferentiateOptions) -> None:
    """
    Raises:
        InputError: two options that exclude each other.
    """
    if options.jacobian and options.seed != contract.ONES:
        raise InputError("a Jacobian is for every seed: leave out seed= or jacobian=True")
    if options.jacobian and options.second:
        raise InputError(
            "jacobian=True and second=True exclude each other; a Hessian is the Jacobian of a "
            "gradient: differentiate the file with grad.X once more, of=grad.X, jacobian=True"
        )


def _names(given: str | Sequence[str] | None) -> Sequence[str] | None:
    return [given] if isinstance(given, str) else given or None


def add_derivatives(forward: Forward, options: DifferentiateOptions) -> Differentiation:
    """Add what is asked for to a canonical forward graph, in place.

    Raises:
        NoRuleError: an operator on the way has no rule.
        RuleError: a rule gave what is no cotangent of its input.
        SourceError: as `Differentiation` raises.
    """
    graph = forward.model.graph
    head = len(graph)
    builder = Builder(graph)
    builder.push_module("pullback")
    op = builder.op
    made = Differentiation(
        op, forward.of, forward.wrt, options.seed, options.prefix, leave_out=not options.wrt
    )
    if options.jacobian:
        made.jacobians()
    else:
        gradients = made.gradients()
        if options.second:
            made.second(gradients)
    join(graph, forward.wrt)
    own = {*islice(graph, head)}
    lower(op, list(islice(graph, head, None)))
    graph.sort()
    for name, end in made.results.items():
        graph.outputs.append(_named(graph, end, name, own))
    stay_on_gpu(op)
    narrow(graph, forward.halves)
    graph.sort()
    return made


def _named(graph: ir.Graph, end: ir.Value, name: str, own: set[ir.Node]) -> ir.Value:
    """What an Identity gives, or where it is free to take a name, what it is given."""
    node = end.producer()
    assert node is not None
    value = node.inputs[0]
    assert value is not None
    producer = value.producer()
    if producer is not None and producer not in own and not value.is_graph_output():
        value.shape, value.type = end.shape, end.type
        graph.remove(node, safe=True)
        end = value
    rename(end, name)
    return end
