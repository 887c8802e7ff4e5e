"""The same explanation of another network: an explain graph's layers, their weights shuffled."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxplain.errors import InputError
from onnxplain.reference.forward import forward_proto
from onnxplain.runtime.onnx_file import weights_beside

SEED = 42
"""Of the order that weights get: one for all images, as a network is opened once; Quantus's own."""

_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def write_shuffled(path: Path, folder: Path) -> Path:
    """An explain graph of which every layer's weights, and its biases, are shuffled among
    themselves: a file in `folder`.

    The forward and the backward pass read the same weights, so that both are of the new network.
    Which value goes where depends on the layers' order and shapes alone: files of one network by
    different methods become files of one network again.

    Raises:
        InputError: there is no such layer; the backward pass keeps weights of its own; it cannot be
            written.
        BackendError: it cannot be read.
    """
    layers = layers_weights(forward_proto(path).graph)
    if not layers:
        raise InputError(f"'{path}' has no layer whose weights could be shuffled")
    model = onnx.load(path)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    _check_shared(path, weights, layers)
    for name, layer in layers.items():
        values = numpy_helper.to_array(weights[name])
        order = np.random.default_rng([SEED, layer, values.size]).permutation(values.size)
        new = numpy_helper.from_array(values.ravel()[order].reshape(values.shape), name)
        weights[name].CopyFrom(new)
    target = folder / path.name
    beside = {"save_as_external_data": True, "location": f"{path.name}.data"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save_model(model, target, **(beside if weights_beside(path) else {}))
    except OSError as error:
        raise InputError(f"cannot write into '{folder}': {error.strerror or error}") from error
    return target


def layers_weights(graph: onnx.GraphProto) -> dict[str, int]:
    """The initializers that convolutions and dense layers read, themselves or by nodes of
    constants alone, and of which layer each is, the first being 0.

    A vector that is added to a layer's output is its bias: exporters write a dense layer on tokens
    as MatMul and Add. None is of int64: these are shapes and axes.
    """
    numbers = {t.name for t in graph.initializer if t.data_type != onnx.TensorProto.INT64}
    vectors = {t.name for t in graph.initializer if sum(size > 1 for size in t.dims) == 1}
    made_by = {name: node for node in graph.node for name in node.output}
    varying = {value.name for value in graph.input} - {t.name for t in graph.initializer}
    for node in graph.node:  # in topological order
        if not varying.isdisjoint(node.input):
            varying.update(node.output)

    def read(names: Sequence[str]) -> Iterator[str]:
        for name in names:
            if name in numbers:
                yield name
            elif name in made_by and name not in varying:
                yield from read(made_by[name].input)

    found, of_output = dict[str, int](), dict[str, int]()
    for node in graph.node:
        names = list(read(node.input))
        if node.op_type in _LAYERS and names:  # attention multiplies what varies
            layer = of_output[node.output[0]] = len(of_output)
        elif node.op_type == "Add" and (of := of_output.keys() & set(node.input)):
            names, layer = [name for name in names if name in vectors], of_output[of.pop()]
        else:
            continue
        for name in names:
            found.setdefault(name, layer)
    return found


def _check_shared(path: Path, weights: Mapping[str, Any], names: Collection[str]) -> None:
    """
    Raises:
        InputError: a tensor that no layer reads has a layer's weights in another order.
    """

    def size(name: str) -> int:
        return math.prod(weights[name].dims)

    def in_order(name: str) -> NDArray[Any]:
        return np.sort(numpy_helper.to_array(weights[name]), axis=None)

    rest = weights.keys() - set(names)
    sizes = {size(name) for name in names} & {size(name) for name in rest}
    own = (in_order(name) for name in names if size(name) in sizes)
    # What has one value throughout, such as biases of 0, no order changes.
    changed = {values.tobytes() for values in own if (values[:1] != values[-1:]).any()}
    for name in rest:
        if size(name) in sizes and in_order(name).tobytes() in changed:
            raise InputError(f"'{path}' keeps a copy of weights, {name!r}: they cannot be shuffled")
