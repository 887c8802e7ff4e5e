"""The canonical forward of a network that is explained by other values than one image."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

import onnx_ir as ir
from onnx_ir.passes import common

from onnxplain.contract.explain import LOGITS, RESERVED
from onnxplain.errors import SourceError
from onnxplain.export.autodiff import dependents
from onnxplain.export.canonical.axes import batch_axes
from onnxplain.export.canonical.canonicalise import Canonical
from onnxplain.export.canonical.declared import open_unknown
from onnxplain.export.canonical.ends import (
    choose_logits,
    is_whole,
    looks_like_classifier,
    make_way,
    own_inputs,
    rename,
)
from onnxplain.export.canonical.outputs import explained_outputs
from onnxplain.export.canonical.ports import forward_between
from onnxplain.export.tensors import dims


def canonicalise_values(
    model: ir.Model,
    wrt: Mapping[str, str],
    output_name: str | None = None,
    keep: Collection[str] = (),
    classifier: bool | None = None,
    sizes: Mapping[str, int] = MappingProxyType({}),
) -> Canonical:
    """Bring a network's forward graph into the canonical form; the model given is consumed.

    All inputs stay, the one whose first axis is the batch first.

    Args:
        wrt: what it is explained by, as users call it → its name in the source.
        output_name, keep, classifier: as for `canonicalise`.
        sizes: numbers for open sizes, by name.

    Raises:
        SourceError: no such value or output, one of whole numbers, one that the outputs do not
            depend on, or that has its batch not first.
        NoRuleError: what no cotangent can pass.
    """
    _name_batch(model.graph)
    floats = [y for y in model.graph.outputs if y.dtype is None or y.dtype.is_floating_point()]
    names = [str(y.name) for y in floats] if output_name is None else [output_name]
    if not names:
        raise SourceError("no output holds floats, which alone can be explained")
    sources = [str(y.name) for y in model.graph.outputs]
    every = sources if output_name is None else []
    forward = forward_between(model, [*names, *keep], [*wrt.values()], sizes)
    model, graph = forward.model, forward.model.graph
    inputs = {str(x.name): x for x in graph.inputs}
    whole = dict(zip(sources, graph.outputs, strict=True))
    own = {name: whole.get(name) or forward.of[name] for name in names}
    graph.outputs[:] = own.values()
    beside = {name: y for name, y in whole.items() if name in every and is_whole(y)}
    roots = {name: forward.wrt[source] for name, source in wrt.items()}
    _put_batch_first(model, roots)
    if classifier is None and output_name is None and not looks_like_classifier(graph):
        classifier = False
    if classifier is not False:
        every, beside = [], {}
        choose_logits(graph, None)
        own = {name: y for name, y in own.items() if y in graph.outputs}
    outputs = explained_outputs(model, own, every, classifier, roots)
    active = dependents(graph, roots.values())
    outputs = outputs.with_whole(graph, {n: y for n, y in beside.items() if y in active})
    if outputs.logits:
        rename(outputs.values[0], LOGITS)
    common.RemoveUnusedNodesPass()(model)
    make_way(graph, RESERVED)
    return Canonical.of(model, outputs, forward.patterns, roots, inputs=inputs)


def _name_batch(graph: ir.Graph) -> None:
    """Call the open first sizes of inputs that have no name "batch"."""
    open_unknown(graph)
    for x in own_inputs(graph):
        shape = [] if x.shape is None else list(x.shape)
        if shape and shape[0] == ir.SymbolicDim(None):
            x.shape = ir.Shape([ir.SymbolicDim("batch"), *shape[1:]])


def _put_batch_first(model: ir.Model, roots: Mapping[str, ir.Value]) -> None:
    """Put the input whose first axis is the batch first.

    Raises:
        SourceError: a value has it not first, or has none, or nothing is made of it.
    """
    graph = model.graph
    for name, x in roots.items():
        if x not in graph.inputs and not x.uses():
            raise SourceError(f"wrt=: nothing that the network puts out is made of {name!r}")
    first = next(iter(roots.values()))
    inputs = [x for x in graph.inputs if x.shape is not None and len(x.shape)]
    leads = [x for x in inputs if x is first or first in dependents(graph, [x])]
    if not leads:
        raise _without_batch(*next(iter(roots.items())))
    graph.inputs.remove(leads[0])
    graph.inputs.insert(0, leads[0])
    batch = dims(leads[0])[0]
    inner = [x for x in roots.values() if x not in graph.inputs]
    axes = dict(zip(inner, batch_axes(model, inner), strict=True))
    for name, x in roots.items():
        own = 0 if x in graph.inputs and dims(x)[:1] == [batch] else axes.get(x)
        if own is None:
            raise SourceError(
                f"wrt=: nothing shows which axis of {name!r} {x.shape} the batch is, whose size in "
                f"{leads[0].name!r} is {batch}"
            )
        if own != 0:
            raise _without_batch(name, x)


def _without_batch(name: str, x: ir.Value) -> SourceError:
    return SourceError(
        f"wrt=: the first axis of {name!r} {x.shape} is not the batch; onnxplain.differentiate has "
        "the gradient by any value"
    )
