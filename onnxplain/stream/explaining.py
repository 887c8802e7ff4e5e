"""From a frame to its explanation and the picture of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from onnxplain.contract.picture import PictureOptions
from onnxplain.runtime import Explainer, Explanation
from onnxplain.runtime.inputs.frames import size_of_frame
from onnxplain.runtime.inputs.objective import as_inputs, on_photograph
from onnxplain.runtime.inputs.targets import target_input
from onnxplain.stream.picture import OVERLAID, explained_frame
from onnxplain.stream.source import Frame


@dataclass(frozen=True)
class Asked:
    """What is asked of every frame.

    Attributes:
        targets, temperature: as `Explainer.__call__` takes them.
        inputs: what the file's objective and estimator take besides, boxes in the frames' pixels.
        look: how an explanation is drawn.
    """

    targets: Any = None
    temperature: float | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    look: PictureOptions = OVERLAID


def explain_frame(
    explainer: Explainer, frame: Frame, asked: Asked
) -> tuple[Explanation, Image.Image]:
    """A frame's explanation, and the frame explained.

    A file that takes photographs is given the frame as it came. What such a file draws is the
    picture, unless it is transparent, or another look is asked for than is usual.

    Raises:
        InputError: a box that does not lie in the frame; an explanation that is not finite.
        BackendError: the runtime failed.
    """
    metadata = explainer.metadata
    if metadata.pixels:
        return _of_pixels(explainer, frame, asked)
    image = frame.image()
    given = on_photograph(metadata, asked.inputs, image.size)
    explanation = explainer([image], asked.targets, asked.temperature, **given)
    return explanation, explained_frame(image, explanation, metadata.preprocessing, asked.look)


def _of_pixels(explainer: Explainer, frame: Frame, asked: Asked) -> tuple[Explanation, Image.Image]:
    metadata, signature = explainer.metadata, explainer.backend.signature
    batch = frame.pixels(metadata.pixels)[None]
    given = on_photograph(metadata, asked.inputs, size_of_frame(batch.shape, metadata.pixels))
    inputs = as_inputs(signature, given, 1)
    targets = target_input(signature, asked.targets, 1)
    unseen = np.zeros((1, 0, 0, 3), np.uint8)
    explanation = explainer.explain_batch(
        batch, unseen, targets, asked.temperature, batch_size=None, inputs=inputs
    )
    seen = (1, *explanation.pullback.shape[-2:], 3)  # of which the size alone is asked for
    explanation = replace(explanation, photographs=np.broadcast_to(np.uint8(0), seen))
    explainer.require_finite(explanation, batch, targets, asked.temperature, inputs)
    drawn = explanation.picture
    if drawn is not None and drawn.shape[-1] == 3 and asked.look == OVERLAID:
        return explanation, Image.fromarray(drawn.reshape(-1, *drawn.shape[-3:])[0])
    image = frame.image()
    return explanation, explained_frame(image, explanation, metadata.preprocessing, asked.look)
