"""One file's entry: what it is, what was recognised, and whether outputs and gradient are right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import skimage.data
from PIL import Image, ImageDraw, ImageFont

import onnxplain
from onnxplain.bench.wild.files import File
from onnxplain.contract.explain import LOGITS
from onnxplain.contract.objective import EXPLAINED_BOX
from onnxplain.runtime import Explanation
from onnxplain.runtime.inputs.batches import as_batch

Array = npt.NDArray[Any]
Run: TypeAlias = Callable[[Array], dict[str, Array]]
Value: TypeAlias = Callable[[Mapping[str, Array]], float]
Errors: TypeAlias = dict[str, float]

NOISE = 0.02
"""Added to the picture, so that no two pixels are equal, between which a maximum has no slope."""

STEPS = (1e-3, 1e-4, 1e-5, 1e-6)
"""Of the differences, relative to the image; one of them must agree."""


def entry(file: File, path: Path) -> dict[str, Any]:
    """Export a file with the gradient, and compare it with the original under ONNX Runtime.

    Returns:
        Ready for JSON: "bytes", "inputs" and "outputs" as the file declares them, "quantised",
        "half" (whether it computes in float16: the differences are then those of the same network
        in float32, as float16 is rounded in steps too large for them);
        "reason" (None, or why it did not export or run); and then "objective", "why", "notes",
        "explain_bytes", "errors" (of each output of the network, the largest difference to the
        original ÷ the largest number there), "spread" (the same of the original, with and without
        ONNX Runtime's optimiser) and "gradient" (of each direction, how far the slope is from
        central differences, ÷ the norm of the gradient).
    """
    model = onnx.load(path, load_external_data=False)
    weights = {tensor.name for tensor in model.graph.initializer}
    made: dict[str, Any] = {
        "bytes": path.stat().st_size,
        "inputs": [_declared(x) for x in model.graph.input if x.name not in weights],
        "outputs": [_declared(y) for y in model.graph.output],
        "quantised": any("Quantize" in node.op_type for node in model.graph.node),
        "half": _is_half(model),
    }
    try:
        with TemporaryDirectory(prefix="onnxplain-wild-") as folder:
            return made | {"reason": None} | _tried(file, path, Path(folder))
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        return made | {"reason": f"{type(error).__name__}: {first[:500]}"}


def _tried(file: File, path: Path, folder: Path) -> dict[str, Any]:
    explained = folder / "explain.onnx"
    metadata = onnxplain.export(path, explained, method="gradient", **file.options)
    objective = metadata.objective
    x, _ = as_batch([picture(file.picture)], metadata.preprocessing)
    x += NOISE * np.random.default_rng(1).standard_normal(x.shape).astype(x.dtype)
    found = onnxplain.load(explained, "cpu")(x, **file.inputs)
    without = without_activations(path, folder)
    original, bare = _running(path), _running(without)
    smooth = _running(in_float32(without, folder)) if _is_half(onnx.load(path)) else bare
    g = found.pullback
    g = np.moveaxis(g, 1, -1) if metadata.preprocessing.layout == "NHWC" else g
    value = VALUES[objective.name](found, file)
    steps = STEPS[1:3] if file.long else STEPS
    return {
        "objective": objective.name,
        "why": objective.why,
        "notes": list(metadata.notes),
        "explain_bytes": explained.stat().st_size,
        "errors": _errors(found, original(x), bare(x)),
        "spread": _spread(path, x, original(x)),
        "gradient": slopes(lambda x: value(smooth(x)), x, g, steps),
    }


def _declared(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    sizes = ", ".join(n.dim_param or str(n.dim_value) for n in tensor.shape.dim)
    return f"{value.name} {onnx.TensorProto.DataType.Name(tensor.elem_type).lower()} [{sizes}]"


def picture(name: str) -> Image.Image:
    """One of scikit-image's photographs, or else a text, black on white."""
    photograph = getattr(skimage.data, name, None)
    if photograph is not None:
        return Image.fromarray(photograph())
    font = ImageFont.load_default(40)
    _, _, right, bottom = font.getbbox(name)
    image = Image.new("RGB", (int(right) + 20, int(bottom) + 20), "white")
    ImageDraw.Draw(image).text((10, 8), name, fill="black", font=font)
    return image


# ----- the original -----


def _running(path: Path, optimised: bool = True) -> Run:
    """What runs it: an image in, outputs by name out."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (image, *_), names = session.get_inputs(), [y.name for y in session.get_outputs()]
    return lambda x: dict(zip(names, session.run(None, {image.name: x}), strict=True))


def _spread(path: Path, x: Array, optimised: Mapping[str, Array]) -> float:
    """How far ONNX Runtime is from itself without its optimiser, of the worst output."""
    return max(_error(y, optimised[name]) for name, y in _running(path, False)(x).items())


def without_activations(path: Path, folder: Path) -> Path:
    """A copy whose outputs are what they were before a final Softmax or Sigmoid."""
    model = onnx.load(path)
    producer = {name: node for node in model.graph.node for name in node.output}
    for output in model.graph.output:
        node = producer.get(output.name)
        while node is not None and node.op_type in _MOVES:
            node = producer.get(node.input[0])
        if node is not None and node.op_type in ("Softmax", "Sigmoid"):
            node.op_type = "Identity"
            del node.attribute[:]
    onnx.save(model, folder / "bare.onnx")
    return folder / "bare.onnx"


def _is_half(model: onnx.ModelProto) -> bool:
    return any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)


def in_float32(path: Path, folder: Path) -> Path:
    """A copy of a file in float16 that computes in float32, with the same weights."""
    model = onnx.load(path)
    graph = model.graph
    half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    attributes = [a for node in graph.node for a in node.attribute]
    for tensor in [*graph.initializer, *(a.t for a in attributes if a.HasField("t"))]:
        if tensor.data_type == half:
            wide = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(wide, tensor.name))
    for attribute in attributes:
        if attribute.name == "to" and attribute.i == half:
            attribute.i = full
    for port in [*graph.input, *graph.output, *graph.value_info]:
        if port.type.tensor_type.elem_type == half:
            port.type.tensor_type.elem_type = full
    onnx.save(model, folder / "wide.onnx")
    return folder / "wide.onnx"


_MOVES = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def _errors(
    found: Explanation, original: Mapping[str, Array], bare: Mapping[str, Array]
) -> dict[str, float]:
    """Of each output, the largest difference ÷ the largest number."""
    if found.is_of_class:
        like = [y.reshape(found.logits.shape) for y in bare.values() if y.size == found.logits.size]
        return {LOGITS: min(_error(found.logits, y) for y in like)}
    return {
        name: _error(found.outputs[name], y)
        for name, y in original.items()
        if name in found.outputs
    }


def _error(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# ----- the objective, and its differences -----


def _class(found: Explanation, file: File) -> Value:
    target = int(found.targets[0])

    def value(outputs: Mapping[str, Array]) -> float:
        like = [y.reshape(-1) for y in outputs.values() if y.size == found.logits.size]
        nearest = min(like, key=lambda y: float(np.abs(y - found.logits[0]).max()))
        return float(nearest[target])

    return value


def _map(found: Explanation, file: File) -> Value:
    """The mean logit where the class is predicted."""
    (name, axes), *_ = found.explained.axes.items()
    axis, target = list(axes).index("class") if "class" in axes else None, int(found.targets[0])

    def by_class(y: Array) -> Array:
        return y[None] if axis is None else np.moveaxis(y, axis, 0)

    own = by_class(found.outputs[name])  # probabilities, or logits
    middle = 0.5 if found.explained.activation else 0.0
    region = own[0] > middle if len(own) == 1 else own.argmax(0) == target
    region = region if region.any() else np.ones_like(region)
    return lambda outputs: float(by_class(outputs[name].astype(np.float64))[target][region].mean())


def _sequence(found: Explanation, file: File) -> Value:
    """The greatest logit at a position, of the class that has it at the start."""
    (name, axes), *_ = found.explained.axes.items()
    order = [list(axes).index(axis) for axis in ("batch", "time", "class")]
    chosen: list[int] = []

    def value(outputs: Mapping[str, Array]) -> float:
        step = outputs[name].transpose(order)[0, file.inputs["position"]]
        chosen.append(int(step.argmax()))
        return float(step[chosen[0]])

    return value


def _detection(found: Explanation, file: File) -> Value:
    """The scores of the class over the boxes that overlap the explained one by more than a half,
    weighted by overlap and score at the start. Of YOLO's single output, boxes as centre and size.
    """
    (name, axes), *_ = found.explained.axes.items()
    settings, box = found.explained.settings, found.outputs[EXPLAINED_BOX][0]
    start = 4 + (settings["objectness"] == "yes")
    column = start + int(found.targets[0])
    weights: list[Array] = []

    def value(outputs: Mapping[str, Array]) -> float:
        y = outputs[name][0].astype(np.float64)
        y = y.T if list(axes) == ["batch", "number", "box"] else y
        scores = y[:, column] * (y[:, 4] if start > 4 else 1.0)
        if not weights:
            centre, size = _decoded(y) if settings["boxes"] == "grid" else (y[:, :2], y[:, 2:4])
            low, high = centre - size / 2, centre + size / 2
            sides = np.minimum(high, box[2:]) - np.maximum(low, box[:2])
            common = np.clip(sides, 0, None).prod(1)
            areas = np.clip(high - low, 0, None).prod(1) + (box[2:] - box[:2]).prod()
            overlap = common / np.maximum(areas - common, 1e-9)
            overlap = np.where(overlap > 0.5, overlap, 0) if (overlap > 0.5).any() else overlap
            weights.append(overlap * scores / (overlap * scores).sum())
        return float((weights[0] * scores).sum())

    return value


def _decoded(y: Array) -> tuple[Array, Array]:
    """Centres and sizes in pixels of what YOLOX makes of a square image."""
    strides = (8, 16, 32)
    side = round((len(y) / sum(stride**-2 for stride in strides)) ** 0.5)
    places = [
        ((column, row), stride)
        for stride in strides
        for row in range(side // stride)
        for column in range(side // stride)
    ]
    at, stride = (np.array(part) for part in zip(*places, strict=True))
    return (y[:, :2] + at) * stride[:, None], np.exp(y[:, 2:4]) * stride[:, None]


VALUES: Mapping[str, Callable[[Explanation, File], Value]] = {
    "class": _class,
    "segment": _map,
    "sequence": _sequence,
    "detection": _detection,
}
"""Objective → what computes its value of the original's outputs before final activations."""


def slopes(value: Callable[[Array], float], x: Array, g: Array, steps: Sequence[float]) -> Errors:
    """How far ⟨g, v⟩ is from central differences along directions v, ÷ ‖g‖.

    Along g itself, along g with random signs on blocks of 8 × 8 pixels, and along noise.
    """
    random, norm = np.random.default_rng(0), float(np.linalg.norm(g))
    blocks = [n if n <= 4 else -(-n // 8) for n in g.shape]
    signs = random.choice([-1.0, 1.0], blocks)
    for axis, n in enumerate(g.shape):
        if n > 4:
            signs = np.take(signs, np.arange(n) // 8, axis)
    along = {"gradient": g, "blocks": g * signs, "noise": random.standard_normal(g.shape)}
    length = float(np.linalg.norm(x - x.mean()))
    value(x)  # chooses what is held constant
    found = {}
    for name, v in along.items():
        v = v / np.linalg.norm(v)
        slope = float((g.astype(np.float64) * v).sum())
        errors = []
        for h in steps:
            up, down = (value((x + s * h * length * v).astype(x.dtype)) for s in (1, -1))
            errors.append(abs((up - down) / (2 * h * length) - slope) / norm)
        found[name] = min(errors)
    return found
