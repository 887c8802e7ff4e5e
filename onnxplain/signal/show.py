"""What a network sees in a picture: the original, its reconstruction, and the difference."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract.explain import LOGITS, Preprocessing
from onnxplain.contract.signals import RECONSTRUCTION
from onnxplain.runtime.inputs.batches import ImageLike, as_batch
from onnxplain.runtime.pictures.render import Cell, grid, signed_image
from onnxplain.signal.compiled import Graph


def pixels_of(graph: Graph, pictures: list[ImageLike]) -> NDArray[np.float32]:
    """Pictures as the graph takes them: the centre square, float32 [N, C, size, size] in [0, 1].

    Raises:
        InputError: a picture that cannot be read.
    """
    size, channels = graph.about.size, graph.about.channels
    # The shorter side fills the square: only the ends of a photograph are lost.
    pre = Preprocessing(size, size, size, (0.0,) * channels, (1.0,) * channels)
    return np.ascontiguousarray(as_batch(pictures, pre)[0])


def show(graph: Graph, pictures: list[ImageLike]) -> Image.Image:
    """A row for each picture: original, reconstruction, and their difference (zero is grey).

    Below the reconstruction stands what the graph's classifier, if it has one, takes it for.

    Raises:
        InputError: a picture that cannot be read.
        BackendError: the runtime failed.
    """
    rows = []
    for picture in pictures:  # one by one: a folder may hold more than fits into one run
        original = pixels_of(graph, [picture])
        found = {name: output[0] for name, output in graph.run(original).items()}
        original, seen = original[0], found[RECONSTRUCTION]
        difference = seen.clip(0, 1) - original
        error = float(np.sqrt((difference**2).mean()))
        rows.append(
            [
                Cell(as_image(original)),
                Cell(as_image(seen), _answer(graph, found[LOGITS]) if LOGITS in found else ""),
                Cell(signed_image(difference), f"{255 * error:.1f} of 255 (RMS)"),
            ]
        )
    return grid(rows, ["original", "reconstruction", "difference"])


def _answer(graph: Graph, logits: NDArray[Any]) -> str:
    odds = np.exp(logits - logits.max())
    k = int(logits.argmax())
    name = graph.about.classes[k] if graph.about.classes else f"class {k}"
    return f"seen as: {name}\n{odds[k] / odds.sum():.1%}"


def as_image(pixels: NDArray[Any]) -> Image.Image:
    """Pixels [C, H, W] in [0, 1], C = 1 or 3, as an image; values beyond are clipped."""
    eight = np.rint(255 * pixels.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(np.broadcast_to(eight, (*eight.shape[:2], 3)))
