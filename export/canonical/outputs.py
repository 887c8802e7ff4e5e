"""Which outputs a canonical forward keeps: the logits, or those that depend on what explains."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxplain.contract.explain import IMAGE
from onnxplain.errors import SourceError
from onnxplain.export.autodiff import dependents
from onnxplain.export.canonical.axes import batch_axes
from onnxplain.export.canonical.ends import (
    cut_activation,
    flatten_logits,
    is_number,
    is_row_of_classes,
    rename,
    require_batch_first,
)


@dataclass(frozen=True)
class Outputs:
    """What a network puts out.

    `values` are the logits alone, or all that depend on what it is explained by; `logits`,
    `activation` and `left_out` are as `Canonical` has them.
    """

    values: Sequence[ir.Value]
    logits: str
    activation: str
    left_out: Sequence[str]

    def with_whole(self, graph: ir.Graph, whole: Mapping[str, ir.Value]) -> Outputs:
        """With outputs of whole numbers put out beside the others, by their names in the source,
        where no logits are explained."""
        if self.logits:
            return self
        for name, y in whole.items():
            if not y.is_graph_output():
                graph.outputs.append(y)
                rename(y, name)
        kept = {str(y.name) for y in graph.outputs}
        return replace(self, left_out=[name for name in self.left_out if name not in kept])


def explained_outputs(
    model: ir.Model,
    named: Mapping[str, ir.Value],
    told: Collection[str],
    classifier: bool | None,
    roots: Mapping[str, ir.Value],
) -> Outputs:
    """Leave a graph the outputs that can be explained.

    Args:
        named: its outputs, by their names in the source.
        told: those whose absence the user is told.
        classifier: as for `canonicalise`.
        roots: what it is explained by, by name.

    Raises:
        SourceError: none depends on the roots; or no logits where they are asked for.
    """
    graph, own = model.graph, list(named.values())
    if classifier is None:
        is_row = is_row_of_classes(own[0]) and not is_number(own[0])
        classifier = is_row and batch_axes(model, own)[0] in (0, None)
    activation, logits = "", ""
    if classifier:
        found, activation = cut_activation(graph)
        require_batch_first(model, found)
        own = [flatten_logits(graph, found)]
        logits = str(own[0].name)
    active = dependents(graph, roots.values())
    if not (explained := [value for value in own if value in active]):
        by = "the image" if IMAGE in roots else " and ".join(map(repr, roots))
        raise SourceError(f"the output {own[0].name!r} does not depend on {by}")
    kept = [name for name, value in zip(named, own, strict=True) if value in active]
    graph.outputs[:] = explained
    return Outputs(explained, logits, activation, [name for name in told if name not in kept])
