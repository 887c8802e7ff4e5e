"""The bodies of requests and of answers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def as_png(photograph: Any) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(np.asarray(photograph)).save(encoded, "PNG")
    return encoded.getvalue()


def arrays(response: Any) -> dict[str, NDArray[Any]]:
    """Of an answer in NumPy's format."""
    assert response.status_code == 200, response.text
    with np.load(io.BytesIO(response.content)) as loaded:
        return dict(loaded)
