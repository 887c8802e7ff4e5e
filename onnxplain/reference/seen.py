"""A file that takes photographs, checked in two: what it makes of them, and the rest of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray
from onnx_ir.passes import common
from PIL import Image

from onnxplain.contract.explain import IMAGE, PULLBACK, Metadata
from onnxplain.contract.pixels import (
    GRAY,
    NV12,
    PULLBACK_SCALE,
    PULLBACK_SEEN,
    PULLBACK_WHOLE,
    SEEN,
    Pixels,
)
from onnxplain.export.autodiff import dependents
from onnxplain.reference.checks import Check
from onnxplain.reference.parity import Parity
from onnxplain.runtime import Explainer
from onnxplain.runtime.inputs.batches import ImageLike, photographs, preprocess
from onnxplain.runtime.inputs.pixels import frame, noise_photographs

_STEP = 1 / 255
_SLACK = 1e-5  # of float32


def behind(graph: str | os.PathLike[str], folder: Path) -> Path:
    """The same explain graph of the network's own input, with the pullback by that, in floats.

    Args:
        graph: the file of one that takes photographs, or puts its pullback out quantised.
        folder: where the other is written.
    """
    model = ir.load(graph)
    ir.external_data.load_to_model(model)
    network = model.graph
    made = {str(y.name): y for node in network for y in node.outputs}
    of_camera: set[ir.Value | None] = set()
    if SEEN in made:
        pixels, seen = network.inputs[0], made[SEEN]
        image = ir.Value(name=IMAGE, shape=seen.shape, type=seen.type)
        pixels.name = f"{IMAGE}.pixels"
        ir.convenience.replace_all_uses_with(seen, image)
        of_camera = dependents(network, [pixels])
        network.inputs[0] = image
    names = (PULLBACK_SEEN, PULLBACK_WHOLE, PULLBACK)
    pullback = next(made[name] for name in names if name in made)
    made[PULLBACK].name, pullback.name = "pullback.put_out", PULLBACK
    left_out = {*of_camera, made[PULLBACK], made.get(PULLBACK_SCALE)}
    network.outputs[:] = [*(y for y in network.outputs if y not in left_out), pullback]
    common.RemoveUnusedNodesPass()(model)
    metadata = replace(Metadata.from_props(model.metadata_props), pixels=Pixels())
    del model.metadata_props["onnxplain.pixels"]
    model.metadata_props.update(metadata.to_props())
    path = folder / "behind.onnx"
    ir.save(model, path, external_data="behind.data")
    return path


def check_seen(
    explainer: Explainer, graph: str | os.PathLike[str], images: Sequence[ImageLike] | None
) -> list[Check]:
    """Whether the network's input is made of photographs as Pillow makes it, to a step of 255.

    Args:
        explainer: of the graph.
        images: photographs; one of noise where there are none.
    """
    metadata = explainer.metadata
    if not metadata.pixels:
        return []
    pre = metadata.preprocessing
    if images is None:
        given = [Image.fromarray(noise_photographs(pre, 1)[0])]
    else:
        given = photographs(list(images))
    model = ir.load(graph)
    ir.external_data.load_to_model(model)
    model.graph.outputs[:] = [y for node in model.graph for y in node.outputs if y.name == SEEN]
    model.graph.inputs[:] = model.graph.inputs[:1]
    common.RemoveUnusedNodesPass()(model)
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    std = np.array(pre.std).reshape(-1, 1, 1) if pre.layout == "NCHW" else np.array(pre.std)
    found, expected = [], []  # of several sizes, where the network takes any
    for photograph in given:
        pixels = frame(photograph, metadata.pixels)
        (seen,) = session.run(None, {IMAGE: pixels[None]})
        found.append((seen[0] * std).ravel())
        expected.append((preprocess(_shown(pixels, metadata.pixels), pre) * std).ravel())
    parity = Parity.of(np.concatenate(found), np.concatenate(expected))
    passed = parity.max_abs <= _STEP + _SLACK
    return [
        Check(
            *("photograph", parity.cosine, parity.relative_l2, parity.max_abs),
            *("difference ≤ 1/255", passed),
        )
    ]


def _shown(pixels: NDArray[np.uint8], form: Pixels) -> Image.Image:
    """What a frame shows, in red, green and blue."""
    if form.format == NV12:
        return _decoded(pixels)
    if form.format == GRAY:
        return Image.fromarray(pixels).convert("RGB")
    if form.axes == (2, 3):
        pixels = pixels.transpose(1, 2, 0)
    return Image.fromarray(pixels[..., ::-1] if form.format.startswith("bgr") else pixels)


def _decoded(pixels: NDArray[np.uint8]) -> Image.Image:
    """NV12 by ITU-R BT.601 of limited range, in float64."""
    height = 2 * len(pixels) // 3
    light = 255 / 219 * (pixels[:height].astype(np.float64) - 16).clip(0)
    chroma = pixels[height:].reshape(height // 2, -1, 2).repeat(2, 0).repeat(2, 1) - 128.0
    u, v = np.moveaxis(chroma, -1, 0)
    rgb = light[..., None] + np.stack([1.596 * v, -0.391 * u - 0.813 * v, 2.018 * u], -1)
    return Image.fromarray(np.floor(rgb + 0.5).clip(0, 255).astype(np.uint8))
