"""The attention of each layer as an output of its own, beside the explanation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.explain import ATTENTION
from onnxplain.errors import SourceError
from onnxplain.export import places
from onnxplain.export.attended import probabilities, weighs_values
from onnxplain.export.autodiff import between
from onnxplain.export.layers import home_of
from onnxplain.export.tensors import dims, rank


def attentions_of(graph: ir.Graph) -> dict[str, ir.Value]:
    """What the softmax of each layer of attention gives, the first layer first, by the name that it
    is to be put out by: `attention.` and the layer's.

    Raises:
        SourceError: there is none.
    """
    found = dict.fromkeys(
        probabilities(node.inputs[0])
        for node in between(graph, graph.inputs, graph.outputs)
        if weighs_values(node)
    )
    if not found:
        raise SourceError(
            "the network has no attention to put out (no Softmax whose rows weigh values); leave "
            "out attentions"
        )
    named, seen = dict[str, ir.Value](), Counter[str]()
    for value in found:
        assert value is not None
        name = ATTENTION + home_of(value)
        named[f"{name}.{seen[name]}" if seen[name] else name] = value
        seen[name] += 1
    return named


def put_out(op: OpBuilder, found: Mapping[str, ir.Value], first: ir.Value) -> list[ir.Value]:
    """The outputs [N, …, queries, keys]: where a layer's first axis holds the heads or the windows
    of each sample, these have an axis of their own.

    Args:
        first: what has the batch as its first axis.

    Raises:
        SourceError: the samples of a layer do not lie one after the other.
    """
    graph, outputs, batch = op.builder.graph, [], dims(first)[0]
    shared = [value for value in found.values() if dims(value)[0] != batch]
    of = _samples(graph, shared) if shared else {}
    for name, value in found.items():
        sizes = dims(value)
        if value not in shared:
            output = op.Identity(value)
        elif value in of:
            each = [of[value], *sizes[1:]]
            output, sizes = op.Reshape(value, [-1, *each]), [batch, *each]
        else:
            raise SourceError(
                f"{name} is {value.shape}, and which sample each of its rows is of is not to be "
                "seen from the graph; leave out attentions"
            )
        output.name, output.shape = name, ir.Shape(sizes)
        outputs.append(output)
    return outputs


def _samples(graph: ir.Graph, values: Sequence[ir.Value]) -> dict[ir.Value, int]:
    """How many rows of their first axis belong to each sample; of those whose rows do not lie
    together by samples, nothing."""
    image, together = graph.inputs[0], dict[ir.Value, int]()
    if rank(image) != 4:
        return {}
    samples = places.sizes_of(image)[0]
    for value, at in places.of(graph, between(graph, [image], values), values).items():
        count = places.sizes_of(value)[0]
        if at.shape[0] != count or count % samples:
            continue
        rows = at[..., 0].reshape(count, -1)
        expected = np.repeat(np.arange(samples), count // samples)[:, None]
        somewhere = ~np.isnan(rows)
        if somewhere.any(1).all() and ((rows == expected) | ~somewhere).all():
            together[value] = count // samples
    return together
