"""The way back: from what lies in the network's geometry to the photograph's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.contract.explain import Preprocessing
from onnxplain.contract.picture import GREY
from onnxplain.export.camera.axis import Axis
from onnxplain.export.camera.resampling import matrix, placement
from onnxplain.export.tensors import constant


@dataclass(frozen=True)
class Camera:
    """What the nodes before a network know of the photograph.

    Attributes:
        op: the builder to go on with.
        photograph: floats of whole numbers, [N,h,w,C] or [N,C,h,w]; TensorRT has no uint8 but at a
            graph's ends.
        down: the axis of its rows.
        colours: which of its channels are red, green and blue; one may be all.
        rows, columns: where the photograph lies in the network's input.
        preprocessing: how it came there.
    """

    op: OpBuilder
    photograph: ir.Value
    down: int
    colours: Sequence[int]
    rows: Axis
    columns: Axis
    preprocessing: Preprocessing

    def grey(self) -> ir.Value:
        """The photograph in grey, float [N,h,w]."""
        weights = np.bincount(self.colours, GREY)
        if self.down == 1:
            column = constant(self.op, weights.reshape(-1, 1), self.photograph)
            return self.op.Squeeze(self.op.MatMul(self.photograph, column), [3])
        kernel = constant(self.op, weights.reshape(1, -1, 1, 1), self.photograph)
        return self.op.Squeeze(self.op.Conv(self.photograph, kernel, kernel_shape=[1, 1]), [1])

    def place(self, value: ir.Value) -> ir.Value:
        """A map of the network's size laid on the photograph: float [N,C,H,W] → [N,C,h,w].

        By bilinear interpolation; 0 where the photograph was cropped.
        """
        if self.preprocessing.keeps_pixels:
            return value
        with_rows, with_columns = (placement(self.op, axis) for axis in (self.rows, self.columns))
        across = self.op.MatMul(value, self.op.Transpose(with_columns, perm=[1, 0]))
        return self.op.MatMul(with_rows, across)

    def gradient(self, g: ir.Value) -> ir.Value:
        """The gradient by the photograph, counted from 0 to 255, of that by the network's input:
        float [N,C,H,W] → [N,C,h,w].

        The channels are the network's: by red, green and blue in the network's order, whatever the
        pixels' format, or by the luminance. The transpose of the resize and of the normalisation,
        whose rounding is passed over; 0 where the photograph was cropped.
        """
        std = 255 * np.array(self.preprocessing.std).reshape(-1, 1, 1)
        return self.part(self.op.Div(g, constant(self.op, std, g)))

    def part(self, value: ir.Value) -> ir.Value:
        """What each pixel of the network's input has, parted among those of the photograph that it
        is made of, by what they weigh in the resize: float [N,C,H,W] → [N,C,h,w].

        The weights of each sum to 1, and so the sum is kept, but for that of a border.
        """
        if self.preprocessing.keeps_pixels:
            return value
        down, across = (
            matrix(self.op, axis, self.preprocessing.interpolation)
            for axis in (self.rows, self.columns)
        )
        wide = self.op.MatMul(value, across)
        return self.op.MatMul(self.op.Transpose(down, perm=[1, 0]), wide)
