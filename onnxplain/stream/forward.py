"""How fast the network alone is, where the stream ran."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxplain.contract.explain import IMAGE
from onnxplain.files import scratch, size_on_disk
from onnxplain.reference.forward import write_forward
from onnxplain.runtime import Explainer
from onnxplain.runtime.inputs.frames import frame_shape
from onnxplain.runtime.sessions import open_session
from onnxplain.timing import median_seconds

_RUNS = 5


def forward_rate(explainer: Explainer, size: tuple[int, int]) -> float | None:
    """Frames per second of a classifier's forward pass, cut out of the file, on the same provider
    in the same precision.

    Args:
        size: width and height of the frames, which a file that takes photographs resizes, and that
            is counted.

    Returns:
        None of an engine, of what is no classifier, and of a file whose weights lie beside it.

    Raises:
        BackendError: the provider does not run it.
    """
    path, backend = explainer.path, explainer.backend
    alone = path is not None and size_on_disk(path) == path.stat().st_size
    if path is None or not alone or not explainer.metadata.objective.is_class:
        return None
    metadata, dtype = explainer.metadata, backend.signature.dtype
    shape: Sequence[int] = metadata.preprocessing.image_shape
    if metadata.pixels:
        shape, dtype = frame_shape(metadata.pixels, *size), np.dtype(np.uint8)
    image = np.zeros((backend.signature.batch or 1, *shape), dtype)
    with scratch() as folder:
        forward = write_forward(path, folder / "forward.onnx")
        session = open_session(forward, backend.provider, precision=backend.precision)
        return 1 / median_seconds(lambda: session.run({IMAGE: image}), _RUNS)
