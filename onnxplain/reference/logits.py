"""An explain graph's logits beside what the ONNX file it was made of itself says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxplain.contract.explain import IMAGE, LOGITS, PULLBACK, Metadata
from onnxplain.reference.parity import Parity
from onnxplain.reference.sources import scores_of_onnx
from onnxplain.runtime import load

Array = npt.NDArray[Any]


FLOAT32, ROUNDED = 1e-4, 1e-2
"""The relative errors up to which rounding may account for it: in float32; in half precision or
whole numbers."""

_HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def of_noise(
    path: str | os.PathLike[str], source: str | os.PathLike[str], input: str | None = None
) -> Parity | str:
    """On two images of noise, or a batch of them where it is fixed.

    Args:
        path: of the explain graph.
        source: the ONNX file.
        input: the image input, where that has several.

    Returns:
        Why that cannot be asked, where it cannot: ONNX Runtime does not run the file on images
        alone, or the graph is unrolled.

    Raises:
        BackendError: the explain graph does not load or run, though its source does.
    """
    model = onnx.load(path, load_external_data=False)
    ports = {port.name: port.type.tensor_type.shape.dim for port in model.graph.output}
    ports |= {port.name: port.type.tensor_type.shape.dim for port in model.graph.input}
    if PULLBACK not in ports:
        return "an unrolled graph returns no logits of one image"
    metadata = Metadata.from_props({prop.key: prop.value for prop in model.metadata_props})
    shape = (ports[IMAGE][0].dim_value or 2, *metadata.preprocessing.image_shape)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    if not scores_of_onnx(source, images, ports[LOGITS][1].dim_value, input):
        return "ONNX Runtime does not run the source on images alone"
    parity = of_file(images, source, input, load(path, "cpu")(images).logits)
    assert parity is not None
    return parity


def tolerance(source: str | os.PathLike[str]) -> float:
    """The relative error that an ONNX file's own rounding may account for."""
    graph = onnx.load(source, load_external_data=False).graph
    half = any(tensor.data_type in _HALF for tensor in graph.initializer)
    half |= any(port.type.tensor_type.elem_type in _HALF for port in graph.input)
    casts = (a.i for node in graph.node if node.op_type == "Cast" for a in node.attribute)
    half |= any(to in _HALF for to in casts)
    whole = any("Quantize" in node.op_type or "Integer" in node.op_type for node in graph.node)
    whole |= any("QLinear" in node.op_type for node in graph.node)
    return ROUNDED if half or whole else FLOAT32


def of_file(
    images: Array,
    source: str | os.PathLike[str],
    input: str | None,
    logits: Array,
) -> Parity | None:
    """The same of the logits of some images, in the graph's own layout."""
    scores = scores_of_onnx(source, images, logits.shape[1], input)
    found = [Parity.of(end, y) for y in scores for end in _ends(logits)]
    return min(found, key=lambda parity: parity.relative_l2, default=None)


def _ends(logits: Array) -> Iterator[Array]:
    """What a classifier may end in: its logits, and what is made of them."""
    yield logits
    logits = logits.astype(np.float64)
    log_softmax = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    yield from (log_softmax, np.exp(log_softmax), 0.5 + 0.5 * np.tanh(0.5 * logits))
