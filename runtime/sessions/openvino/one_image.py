"""One image on OpenVINO: of known sizes, and several targets without a change of layout at gates.

A multi-target graph carries cotangents as [K,N,C,H,W] past the gates, [N,C,H,W], and as
[K·N,C,H,W] through the convolutions. OpenVINO (2026.4) has blocked layouts for the latter alone,
and reorders before and after each of these reshapes. For one image the gate broadcasts over
[K,C,H,W] as it is: five explanations of ResNet-50 cost 2.9 of one in float32, 2.8 in bfloat16; they
cost 4.1 and 4.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import TARGET
from onnxplain.runtime.sessions.openvino.options import Shapes
from onnxplain.runtime.signature import Port

_ELEMENTWISE = ("Add", "Divide", "Multiply", "Subtract")


def one_image(inputs: Mapping[str, Port]) -> Shapes:
    """The inputs' shapes for one image; a scalar's is always the same."""
    return tuple((name, (1, *port.shape[1:])) for name, port in inputs.items() if port.shape)


def images_of(inputs: Mapping[str, NDArray[Any]]) -> list[dict[str, NDArray[Any]]]:
    """The inputs of each image; a scalar is the same for all."""
    return [
        {name: array[i : i + 1] if array.ndim else array for name, array in inputs.items()}
        for i in range(len(inputs[TARGET]))
    ]


def keep_merged(model: Any) -> None:
    """Let an `openvino.Model` of one image and several targets meet the gates as [K·N,…], in place.

    What is computed as [K,N,…] only for that is computed as [K·N,…], where it is known. A node
    between takes merged operands instead, and what still wants [K,N,…] of it, a reshape.
    """
    if any(_is_targets_of_one_image(port) for port in model.inputs):
        _merge(model)


def _is_targets_of_one_image(port: Any) -> bool:
    shape = port.get_partial_shape()
    return TARGET in port.names and len(shape) == 2 and shape[0] == 1


def _merge(model: Any) -> None:
    from openvino import opset13 as ops

    merged: dict[tuple[str, int], tuple[Any, Any]] = {}  # of [K,N,…]: [K·N,…], [K,N]
    for node in model.get_ordered_ops():
        known = [merged.get(_key(value)) for value in node.input_values()]
        shapes = [_shape(value) for value in node.outputs()]
        found = next((pair for pair in known if pair is not None), None)
        if node.get_type_name() == "Reshape":
            value, made = node.input_value(0), shapes[0]
            if len(made) > 2 and None not in made[2:] and made[2:] == _shape(value)[1:]:
                merged[_key(node.output(0))] = value, ops.slice(node.input_value(1), [0], [2], [1])
            elif known[0] is not None and made[1:] == _shape(known[0][0])[1:]:
                node.output(0).replace(known[0][0])
        elif found and not any(None in shape[2:] for shape in shapes):
            known = [m or _whole(v, found) for m, v in zip(known, node.input_values(), strict=True)]
            if not _merges(node, known):
                continue
            for i, pair in enumerate(known):
                if pair is not None:
                    node.set_argument(i, pair[0])
            node.validate_and_infer_types()
            for value, shape in zip(node.outputs(), shapes, strict=True):
                users = value.get_target_inputs()
                sizes = ops.concat([found[1], np.array(shape[2:], np.int64)], 0)
                split = ops.reshape(value, sizes, False)
                for user in users:
                    user.replace_source_output(split.output(0))
                merged[_key(split.output(0))] = value, found[1]
    model.validate_nodes_and_infer_types()


def _whole(value: Any, beside: tuple[Any, Any]) -> tuple[Any, Any] | None:
    """Another [K,N,…] as [K·N,…]; None for what is not: only a K has no known size."""
    from openvino import opset13 as ops

    shape = _shape(value)
    if len(shape) != len(_shape(beside[0])) + 1 or shape[0] is not None or None in shape[2:]:
        return None
    return ops.reshape(value, np.array([-1, *shape[2:]], np.int64), False).output(0), beside[1]


def _merges(node: Any, known: Sequence[tuple[Any, Any] | None]) -> bool:
    """Whether the node is the same on merged operands: it broadcasts alike, its axes count from
    the end."""
    kind, values = node.get_type_name(), node.input_values()
    rank = max(len(_shape(pair[0])) for pair in known if pair is not None)
    if kind in _ELEMENTWISE:
        shapes = [_shape(value) for value in values]
        return all(
            pair is not None or len(shape) < rank or (len(shape) == rank and shape[0] == 1)
            for pair, shape in zip(known, shapes, strict=True)
        )
    if kind == "Concat":
        return None not in known and -rank < node.get_attributes()["axis"] < 0
    axes = {"Slice": 4, "VariadicSplit": 1}.get(kind, len(values))
    if axes >= len(values) or values[axes].get_node().get_type_name() != "Constant":
        return False
    return all(-rank < axis < 0 for axis in values[axes].get_node().get_data().ravel())


def _key(value: Any) -> tuple[str, int]:
    return value.get_node().get_friendly_name(), value.get_index()


def _shape(value: Any) -> tuple[int | None, ...]:
    return tuple(d.get_length() if d.is_static else None for d in value.get_partial_shape())
