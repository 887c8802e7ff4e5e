"""The table that is written: its columns, and rows for a few images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray
from PIL import Image

from onnxplain.batch.columns import Classes, Columns, Objectives, fixed, spread
from onnxplain.runtime import Explainer, Explanation

STORES = ("pullback", "heatmap")

_PNG_EFFORT = 1  # zlib's level; at 6 the file is a twelfth smaller, but takes three times as long


class Rows:
    """The table's columns for one explainer, and how an explanation fills them.

    `index` int64, `id` text, `error` text or null. Then, null if there is an error: those of what
    is explained (`onnxplain.batch.columns`); and for the pullback either `pullback` float16 [C,H,W]
    with `pullback_scale` float32, or `heatmap`, an 8-bit grey PNG [H,W] in which 255 is 1.

    The pullback is `pullback_scale` × `pullback`. The scale is a power of two, so that scaling does
    not round; the greatest |value| stored lies in [0.5, 1), so that half floats neither overflow
    nor lose a small pullback altogether.

    Args:
        top: likeliest classes per row, of a classifier.
        store: one of `STORES`.

    Attributes:
        floats, repeating: as `onnxplain.batch.columns.Columns` has them, of all columns.
    """

    def __init__(self, explainer: Explainer, top: int, store: str) -> None:
        pre = explainer.metadata.preprocessing
        classes = explainer.backend.signature.classes
        channels = 1 if explainer.metadata.is_map else pre.channels
        self._shape = (channels, pre.height, pre.width)
        self._store = store
        self._explained: Columns = Objectives(explainer)
        if explainer.metadata.objective.is_class:
            self._explained = Classes(classes, top)
        self.floats, self.repeating = list(self._explained.floats), self._explained.repeating
        if store == "pullback":
            half = pyarrow.fixed_shape_tensor(pyarrow.float16(), self._shape)
            stored = [("pullback", half), ("pullback_scale", pyarrow.float32())]
            self.floats.append("pullback.list.element")
        else:
            stored = [("heatmap", pyarrow.binary())]
        self.schema = pyarrow.schema(
            [
                ("index", pyarrow.int64()),
                ("id", pyarrow.string()),
                ("error", pyarrow.string()),
                *self._explained.fields,
                *stored,
            ]
        )

    def batch(
        self,
        first: int,
        ids: Sequence[str],
        errors: Sequence[str | None],
        explanation: Explanation | None,
        sizes: Sequence[tuple[int, int]],
    ) -> pyarrow.RecordBatch:
        """The rows for some images.

        Args:
            first: the index of the first.
            ids, errors: one for each; the error is None if the image was explained.
            explanation: that of the images without an error, in order; None if there are none.
            sizes: the width and height of these.
        """
        good = np.array([error is None for error in errors])
        columns: list[Any] = [np.arange(first, first + len(ids)), list(ids), list(errors)]
        if explanation is None:
            columns += [[None] * len(ids)] * (len(self.schema) - len(columns))
        else:
            columns += self._explained.of(explanation, sizes, good)
            columns += self._stored(explanation, good)
        arrays = [
            column if isinstance(column, pyarrow.Array) else pyarrow.array(column, field.type)
            for column, field in zip(columns, self.schema, strict=True)
        ]
        return pyarrow.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _stored(self, explanation: Explanation, good: NDArray[np.bool_]) -> list[Any]:
        if self._store == "heatmap":
            heat = explanation.heatmap().reshape(len(explanation), *self._shape[1:])
            return [spread([_png(image) for image in heat], good)]
        flat = explanation.pullback.reshape(len(explanation), -1)
        _, exponent = np.frexp(np.abs(flat).max(axis=1).astype(np.float64))
        scale = np.ldexp(1.0, exponent)
        half = (flat / scale[:, None].astype(flat.dtype)).astype(np.float16)
        storage = fixed(half, good)
        tensors = pyarrow.ExtensionArray.from_storage(self.schema.field("pullback").type, storage)
        return [tensors, spread(scale.tolist(), good)]


def _png(heat: NDArray[np.float32]) -> bytes:
    encoded = io.BytesIO()
    pixels = Image.fromarray(np.rint(255 * heat).astype(np.uint8))
    pixels.save(encoded, "PNG", compress_level=_PNG_EFFORT)
    return encoded.getvalue()
