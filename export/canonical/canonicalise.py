"""The canonical forward: one opset, one spelling, float32, static shapes but for the batch.

What the sweep can rely on afterwards: opset ≥ 20, no functions, no control flow whose course is
constant, no operator that opset 20 lacks, every weight and constant an initializer (or a Cast or
DequantizeLinear of one, which keeps it as small as it was), BatchNormalization folded into the
convolution before it, dead nodes gone, ranks and sizes known, one input named `image`; and one
output named `logits` [N, classes], or the network's own outputs where it is no classifier.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes import common

from onnxplain.contract.explain import IMAGE, LOGITS, RESERVED
from onnxplain.errors import SourceError
from onnxplain.export.autodiff import between, dependents
from onnxplain.export.canonical.axes import batch_axes
from onnxplain.export.canonical.batch import free_batch
from onnxplain.export.canonical.control_flow import refuse_control_flow
from onnxplain.export.canonical.ends import (
    choose_image,
    choose_logits,
    choose_outputs,
    cut_activation,
    drop_other_inputs,
    fix_sizes,
    flatten_logits,
    is_number,
    is_row_of_classes,
    looks_like_classifier,
    make_way,
    rename,
    require_batch_first,
)
from onnxplain.export.canonical.general import opened, settle, spell
from onnxplain.export.canonical.patterns import recognise
from onnxplain.export.canonical.quantisers import recognise_dynamic_quantisers, show_relus


@dataclass(frozen=True)
class Canonical:
    """A canonical forward and what was learned of it.

    `activation`, "softmax" or "sigmoid", came after the logits: it makes them probabilities;
    `shown` says whether the network itself ends in it. `patterns` counts what
    `onnxplain.export.canonical.patterns` recognised, by name.
    `fixed_batch` says why the batch is fixed, where it could not be freed. `logits` is the name
    that the logits had in the source, empty where the network is no classifier: its outputs are its
    own then, by their own names, but for those `left_out`: whole numbers, and what does not depend
    on the image.
    """

    model: ir.Model
    activation: str
    shown: bool
    patterns: Mapping[str, int]
    fixed_batch: str | None
    logits: str
    left_out: Sequence[str] = ()


def canonicalise(
    model: ir.Model,
    size: tuple[int, int] | None = None,
    input_name: str | None = None,
    output_name: str | None = None,
    keep: Collection[str] = (),
    fold_norms: bool = True,
    classifier: bool | None = True,
) -> Canonical:
    """Bring a network's forward graph into the canonical form; the model given is consumed.

    A batch that the network fixes becomes dynamic where that is provably safe; elsewhere it stays.

    Args:
        size: height and width, for an input that leaves them open.
        input_name: the image input, where there are several.
        output_name: what is explained, where there are several outputs; any float value.
        keep: the names of values that no simplification may remove.
        fold_norms: whether a BatchNorm goes into the convolution before it.
        classifier: whether it ends in logits [N, classes]; None where the outputs are to show it.

    Raises:
        SourceError: no single image-like input, no logits, or an opset or sizes that cannot be had;
            the message says what was found and what to pass.
        NoRuleError: control flow that depends on the image, integer arithmetic, an operator of
            ONNX Runtime's own.
    """
    model, was_half = opened(model)
    graph = model.graph
    image = choose_image(graph, input_name)
    fix_sizes(image, size)
    spell(model)
    if classifier is None and output_name is None and not looks_like_classifier(graph):
        classifier = False
    named: list[str] = []
    if classifier is False:
        named = [str(value.name) for value in graph.outputs] if output_name is None else []
        choose_outputs(graph, output_name)
    else:
        choose_logits(graph, output_name)
    own = list(graph.outputs)
    names = [str(value.name) for value in own]
    graph.outputs.extend(y for node in list(graph) for y in node.outputs if y.name in keep)
    if not fold_norms:  # what is put out is kept as it is
        norms = [node.inputs[0] for node in graph if node.op_type == "BatchNormalization"]
        graph.outputs.extend(x for x in norms if x is not None and x not in graph.outputs)
    settle(model, [image])
    own = list(graph.outputs)[: len(own)]
    image = drop_other_inputs(graph)
    refuse_control_flow(between(graph, [image], graph.outputs))
    show_relus(graph, image)
    fixed_batch = free_batch(model)
    recognise_dynamic_quantisers(graph)
    if classifier is None:
        is_row = is_row_of_classes(own[0]) and not is_number(own[0])
        classifier = is_row and batch_axes(model, own)[0] in (0, None)
    activation, logits_name = "", ""
    if classifier:
        logits, activation = cut_activation(graph)
        require_batch_first(model, logits)
        own = [flatten_logits(graph, logits)]
        logits_name = str(own[0].name)
    active = dependents(graph, [image])
    if not (explained := [value for value in own if value in active]):
        raise SourceError(f"the output {own[0].name!r} does not depend on the image")
    kept = [name for name, value in zip(names, own, strict=True) if value in active]
    left_out = [name for name in named if name not in kept]
    graph.outputs[:] = explained
    common.RemoveUnusedNodesPass()(model)
    rename(image, IMAGE)
    if classifier:
        rename(own[0], LOGITS)
    make_way(graph, RESERVED)
    patterns = recognise(model, was_half)
    by_default = "softmax" if classifier else ""
    return Canonical(
        model,
        activation or by_default,
        bool(activation),
        patterns,
        fixed_batch,
        logits_name,
        left_out,
    )
