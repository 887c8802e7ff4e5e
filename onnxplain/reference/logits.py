"""An explain graph's logits beside what the network it was made of itself says."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxplain.contract.explain import IMAGE, LOGITS, Metadata
from onnxplain.contract.objective import OBJECTIVE
from onnxplain.errors import BackendError, SourceError
from onnxplain.reference.parity import Parity
from onnxplain.reference.sources import (
    is_float32,
    is_onnx,
    outputs_of_onnx,
    outputs_of_pytorch,
    scores_of_onnx,
    scores_of_pytorch,
)
from onnxplain.runtime.onnx_file import read_metadata, read_ports
from onnxplain.runtime.sessions.onnx_runtime.options import (
    failures,
    inference_session,
    session_options,
)
from onnxplain.runtime.signature import Port

Array = npt.NDArray[Any]


FLOAT32, ROUNDED = 1e-4, 1e-2
"""The relative errors up to which rounding may account for it: in float32; in half precision or
whole numbers."""

OF_ONE = 1e-6
"""The error of probabilities: near 0 a sigmoid is as wrong as near 1 (ONNX Runtime's by 1.5e-7)."""

_HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def compare(file: Path, original: Any, input: str | None = None) -> str | None:
    """An explain graph beside its source, on two images of noise, or as many as it takes.

    Args:
        file: of the explain graph.
        original: the path of an ONNX file, or what PyTorch runs.
        input: the image input, where an ONNX file has several.

    Returns:
        What is to be noted: why they cannot be compared, if they cannot; or that the source takes
        one image alone. None otherwise.

    Raises:
        SourceError: the logits, or the outputs of what is no classifier, differ by more than
            rounding, or the graph does not run where an ONNX file does.
    """
    inputs, outputs = read_ports(file)
    if LOGITS not in outputs or OBJECTIVE in outputs:
        return compare_outputs(file, original, input)
    classes, fixed = outputs[LOGITS].shape[1] or 0, inputs[IMAGE].shape[0]
    given = _noise(inputs, fixed or 2)
    scores = _scores(original, given[IMAGE], classes, input)
    note = None
    if isinstance(scores, str) and not fixed:
        given = _noise(inputs, 1)
        alone = _scores(original, given[IMAGE], classes, input)
        scores, note = (scores, None) if isinstance(alone, str) else (alone, ONE_ALONE)
    if isinstance(scores, str):
        return f"not checked: {scores}"
    return _compared(file, original, input, given, scores) or note


ONE_ALONE = (
    "the network declares an open batch and takes one image alone: explain them one by one, or fix "
    "the batch in the file (python -m onnxruntime.tools.make_dynamic_shape_fixed), so that export "
    "can look for what fixes it"
)


def _compared(
    file: Path,
    original: Any,
    input: str | None,
    given: Mapping[str, Array],
    scores: list[Array],
) -> str | None:
    """What `compare` does once the source has told its scores."""
    try:
        logits = _logits(file, given)
    except BackendError as error:
        if is_onnx(original):
            raise SourceError(f"it does not run where its source does: {error}") from error
        return f"not checked: ONNX Runtime does not run it: {error}"
    if not np.isfinite(logits).all() and not np.isfinite(scores[0]).all():
        return "not checked: the source itself makes no finite numbers of noise"
    found = _nearest(logits, scores)
    wrong = np.inf if found is None else found.relative_l2
    if wrong <= FLOAT32 or wrong <= tolerance(original):
        return None
    again = _scores(original, given[IMAGE], logits.shape[1], input)
    if not np.array_equal(scores[0], again[0], equal_nan=True):
        return "not checked: the source does not answer twice the same"
    raise SourceError(
        f"on noise, its logits differ from those of its source by {wrong:.1e} of their size"
    )


def compare_outputs(file: Path, original: Any, input: str | None = None) -> str | None:
    """The same of a graph that is no classifier's: the network's own outputs, by their names.

    Raises:
        SourceError: as `compare`.
    """
    inputs, _ = read_ports(file)
    names = list(Metadata.from_props(read_metadata(file)).objective.axes)
    found: dict[str, Array] | str = {}
    for batch in dict.fromkeys([inputs[IMAGE].shape[0] or 2, 1]):
        given = _noise(inputs, batch)
        found = _own_outputs(original, given[IMAGE], input, names)
        if not isinstance(found, str):
            break
    if isinstance(found, str):
        return f"not checked: {found}"
    try:
        ours = run_forward(file, given, list(found))
    except BackendError as error:
        if is_onnx(original):
            raise SourceError(f"it does not run where its source does: {error}") from error
        return f"not checked: ONNX Runtime does not run it: {error}"
    limit = max(FLOAT32, tolerance(original))
    for name, expected in found.items():
        if ours[name].shape != expected.shape:
            raise SourceError(
                f"its output {name!r} is {list(ours[name].shape)} for {batch} images, that of its "
                f"source {list(expected.shape)}"
            )
        parity = Parity.of(ours[name], expected)
        wrong = parity.relative_l2
        if parity.max_abs <= OF_ONE and (expected >= 0).all() and (expected <= 1).all():
            continue
        if not wrong <= limit and np.isfinite(expected).all():
            raise SourceError(
                f"on noise, its output {name!r} differs from that of its source by {wrong:.1e} of "
                "its size"
            )
    return None


def _own_outputs(
    original: Any, images: Array, input: str | None, names: list[str]
) -> dict[str, Array] | str:
    """The source's outputs of those names, or why there are none."""
    try:
        if is_onnx(original):
            found = outputs_of_onnx(original, images, input)
        else:
            found = outputs_of_pytorch(original, images)
    except Exception as error:  # of any kind: it may be the user's own code
        return f"the source does not run on noise: {error}"
    own = {name: name.removeprefix("source.") for name in names}
    chosen = {name: found[own[name]] for name in names if own[name] in found}
    if not chosen and len(found) == len(names) == 1:
        chosen = dict(zip(names, found.values(), strict=True))
    return chosen or "the source has no outputs of these names"


def _logits(file: Path, given: Mapping[str, Array]) -> Array:
    return run_forward(file, given, [LOGITS])[LOGITS]


def run_forward(file: Path, given: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """Some outputs of the graph, which is loaded as a whole; what runs is its forward pass.

    Raises:
        BackendError: ONNX Runtime does not take it, or fails.
    """
    as_it_is = session_options()
    as_it_is.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    inference_session(file, "float32", as_it_is, ["CPUExecutionProvider"])
    model = ir.load(file)
    graph = model.graph
    graph.outputs[:] = [value for value in graph.outputs if value.name in names]
    RemoveUnusedNodesPass()(model)
    options = session_options()
    options.add_session_config_entry(_DATA_FOLDER, str(file.parent))
    with failures():
        forward = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
        found = forward.run(list(names), dict(given))
    return {name: np.asarray(array) for name, array in zip(names, found, strict=True)}


_DATA_FOLDER = "session.model_external_initializers_file_folder_path"


def _noise(inputs: Mapping[str, Port], batch: int) -> dict[str, Array]:
    """Images of noise, of which each asks for the first class."""
    random, given = np.random.default_rng(0), {}
    for name, port in inputs.items():
        shape = [batch, *(size or 1 for size in port.shape[1:])] if port.shape else []
        others = np.full(shape, port.dtype != "int64")
        values = random.standard_normal(shape) if name == IMAGE else others
        given[name] = np.asarray(values, port.dtype)
    return given


def _scores(original: Any, images: Array, classes: int, input: str | None) -> list[Array] | str:
    """What may be the source's logits, or why there is nothing."""
    if is_onnx(original):
        found = scores_of_onnx(original, images, classes, input)
        return found or "ONNX Runtime does not run the source on images alone"
    try:
        return [scores_of_pytorch(original, images)]
    except Exception as error:  # of any kind: it is the user's own code
        return f"PyTorch does not run the source on noise: {error}"


def tolerance(source: Any) -> float:
    """The relative error that a network's own rounding may account for."""
    if not is_onnx(source):
        return FLOAT32 if is_float32(source) else ROUNDED
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
    """How far logits are from what an ONNX file says of the same images.

    Args:
        images: in the graph's own layout.
        logits: the graph's, [N, classes].

    Returns:
        None where none of the file's outputs can be compared with them.
    """
    return _nearest(logits, scores_of_onnx(source, images, logits.shape[1], input))


def _nearest(logits: Array, scores: list[Array]) -> Parity | None:
    found = [Parity.of(end, y) for y in scores for end in _ends(logits)]
    return min(found, key=lambda parity: parity.relative_l2, default=None)


def _ends(logits: Array) -> Iterator[Array]:
    """What a classifier may end in: its logits, and what is made of them."""
    yield logits
    logits = logits.astype(np.float64)
    log_softmax = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    yield from (log_softmax, np.exp(log_softmax), 0.5 + 0.5 * np.tanh(0.5 * logits))
