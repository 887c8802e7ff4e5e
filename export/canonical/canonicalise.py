"""The canonical forward: one opset, one spelling, float32, static shapes but for the batch.

What the sweep can rely on afterwards: opset ≥ 20, no functions, no control flow whose course is
constant, no operator that opset 20 lacks, every weight and constant an initializer (or a Cast or
DequantizeLinear of one, which keeps it as small as it was), BatchNormalization folded into the
convolution before it, dead nodes gone, ranks and sizes known, one input named `image`; and one
output named `logits` [N, classes], or the network's own outputs where it is no classifier.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType

import onnx_ir as ir
from onnx_ir.passes import common

from onnxplain.contract.explain import IMAGE, LOGITS, RESERVED
from onnxplain.errors import NoRuleError
from onnxplain.export.autodiff import between, dependents
from onnxplain.export.canonical.any_size import least_side, multiple_of, open_size, probes
from onnxplain.export.canonical.batch import free_batch, mixes
from onnxplain.export.canonical.control_flow import refuse_sequences
from onnxplain.export.canonical.ends import (
    choose_image,
    choose_logits,
    choose_outputs,
    drop_other_inputs,
    fix_sizes,
    looks_like_classifier,
    make_way,
    rename,
    turn_channels,
)
from onnxplain.export.canonical.general import opened, settle, simplify, spell
from onnxplain.export.canonical.outputs import Outputs, explained_outputs
from onnxplain.export.canonical.patterns import recognise
from onnxplain.export.canonical.quantisers import recognise_dynamic_quantisers, show_relus
from onnxplain.export.canonical.sizes import settle_sizes
from onnxplain.export.shapes import infer_shapes


@dataclass(frozen=True)
class Canonical:
    """A canonical forward and what was learned of it.

    `activation`, "softmax" or "sigmoid", came after the logits: it makes them probabilities;
    `shown` says whether the network itself ends in it. `patterns` counts what
    `onnxplain.export.canonical.patterns` recognised, by name.
    `fixed_batch` says why the batch is fixed, where it could not be freed. `logits` is the name
    that the logits had in the source, empty where the network is no classifier: its outputs are its
    own then, by their own names, but for those `left_out`: what does not depend on the image, and
    whole numbers for which images are mixed. `roots` are what it is explained by, by name: the
    image, or other values, those within the network behind an Identity of their own
    (`onnxplain.export.canonical.ports.Forward`). `inputs` are the network's own, by their names in
    the source, where they stay beside what it is explained by. An image's height and width may be
    any multiples of `multiple` from `least` on, where that is not 0.
    """

    model: ir.Model
    activation: str
    shown: bool
    patterns: Mapping[str, int]
    fixed_batch: str | None
    logits: str
    roots: Mapping[str, ir.Value]
    left_out: Sequence[str] = ()
    inputs: Mapping[str, ir.Value] = field(default_factory=dict)
    multiple: int = 0
    least: int = 1

    @classmethod
    def of(
        cls,
        model: ir.Model,
        outputs: Outputs,
        patterns: Mapping[str, int],
        roots: Mapping[str, ir.Value],
        fixed_batch: str | None = None,
        inputs: Mapping[str, ir.Value] = MappingProxyType({}),
        multiple: int = 0,
        least: int = 1,
    ) -> Canonical:
        """What was learned, put together."""
        by_default = "softmax" if outputs.logits else ""
        return cls(
            model,
            outputs.activation or by_default,
            bool(outputs.activation),
            patterns,
            fixed_batch,
            outputs.logits,
            roots,
            outputs.left_out,
            inputs,
            multiple,
            least,
        )


def canonicalise(
    model: ir.Model,
    size: tuple[int, int] | None = None,
    input_name: str | None = None,
    output_name: str | None = None,
    keep: Collection[str] = (),
    fold_norms: bool = True,
    classifier: bool | None = True,
    bgr: bool = False,
    any_size: bool = False,
) -> Canonical:
    """Bring a network's forward graph into the canonical form; the model given is consumed.

    A batch that the network fixes becomes dynamic where that is provably safe; elsewhere it stays.

    Args:
        size: height and width, for an input that leaves them open; the usual ones of `any_size`.
        input_name: the image input, where there are several.
        output_name: what is explained, where there are several outputs; any float value.
        keep: the names of values that no simplification may remove.
        fold_norms: whether a BatchNorm goes into the convolution before it.
        classifier: whether it ends in logits [N, classes]; None where the outputs are to show it.
        bgr: whether its image has blue first, and the canonical one red.
        any_size: whether height and width stay open, or become so.

    Raises:
        SourceError: no single image-like input, no logits, or an opset or sizes that cannot be had;
            the message says what was found and what to pass.
        NoRuleError: a sequence whose length the image decides, integer arithmetic or an operator of
            ONNX Runtime's own that has no form in ONNX's floats.
    """
    model, was_half = opened(model)
    graph = model.graph
    image = choose_image(graph, input_name)
    if any_size:
        open_size(graph, image, size)
        infer_shapes(model)
    else:
        fix_sizes(graph, image, size)
    if bgr:
        turn_channels(graph, image)
    spell(model)
    sizes = probes(model, image, simplify) if any_size else {}
    if classifier is None and output_name is None and not looks_like_classifier(graph):
        classifier = False
    named: list[str] = []
    whole: list[ir.Value] = []
    if classifier is False:
        named = [str(value.name) for value in graph.outputs] if output_name is None else []
        whole = choose_outputs(graph, output_name)
    else:
        choose_logits(graph, output_name)
    own = list(graph.outputs)
    names = [str(value.name) for value in own]
    graph.outputs.extend(y for node in list(graph) for y in node.outputs if y.name in keep)
    if not fold_norms:  # what is put out is kept as it is
        norms = [node.inputs[0] for node in graph if node.op_type == "BatchNormalization"]
        graph.outputs.extend(x for x in norms if x is not None and x not in graph.outputs)
    whole = [y for y in whole if y not in dependents(graph, graph.inputs[1:])]
    wholes, first = [str(y.name) for y in whole], len(graph.outputs)
    graph.outputs.extend(whole)
    settle(model, [image], sizes=sizes)
    own, whole = list(graph.outputs)[: len(own)], list(graph.outputs)[first:]
    graph.outputs[:] = list(graph.outputs)[:first]
    beside = _beside(graph, image, dict(zip(wholes, whole, strict=True)))
    graph.outputs.extend(beside.values())
    common.RemoveUnusedNodesPass()(model)
    graph.outputs[:] = list(graph.outputs)[:first]
    image = drop_other_inputs(graph)
    refuse_sequences(between(graph, [image], graph.outputs))
    show_relus(graph, image)
    fixed_batch = free_batch(model)
    multiple, least = 0, 1
    if any_size:
        settle_sizes(model, [image], simplify, name_all=True, sizes=sizes)
        multiple = multiple_of(sizes)
        least = least_side(model, image, multiple, simplify)
    recognise_dynamic_quantisers(graph)
    by_name = dict(zip(names, own, strict=True))
    outputs = explained_outputs(model, by_name, named, classifier, {IMAGE: image}).with_whole(
        graph, beside
    )
    common.RemoveUnusedNodesPass()(model)
    rename(image, IMAGE)
    if outputs.logits:
        rename(outputs.values[0], LOGITS)
    make_way(graph, RESERVED)
    patterns = recognise(model, was_half)
    return Canonical.of(
        model,
        outputs,
        patterns,
        {IMAGE: image},
        fixed_batch,
        multiple=multiple,
        least=least,
    )


def _beside(graph: ir.Graph, image: ir.Value, whole: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
    """The outputs of whole numbers that can stay beside those that are explained: none for which
    images are mixed that are not anyway, or that sequences are made for."""
    explained = between(graph, [image], graph.outputs)
    kept = {}
    for name, y in whole.items():
        path = between(graph, [image], [y])
        if mixes(path, image) and not mixes(explained, image):
            continue
        with suppress(NoRuleError):
            refuse_sequences(path)
            kept[name] = y
    return kept
