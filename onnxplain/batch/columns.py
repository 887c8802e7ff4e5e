"""The columns of what is explained: of a classifier's classes, or of another objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow
from numpy.typing import NDArray

from onnxplain.contract.objective import EXPLAINED_BOX, EXPLAINED_CLASS
from onnxplain.runtime import Explainer, Explanation
from onnxplain.runtime.inputs.batches import box_in_photograph

_MOST = 4096  # numbers of an output that a row holds


class Columns(Protocol):
    """Some columns of a table.

    Attributes:
        fields: their names and types.
        floats: the paths of those that are stored byte by byte: exponents compress apart from
            mantissas.
        repeating: the paths of those whose values repeat.
    """

    fields: list[tuple[str, pyarrow.DataType]]
    floats: list[str]
    repeating: list[str]

    def of(
        self,
        explanation: Explanation,
        sizes: Sequence[tuple[int, int]],
        good: NDArray[np.bool_],
    ) -> list[Any]:
        """Their values, in the fields' order; None where an image is not good.

        Args:
            explanation: that of the good images.
            sizes: the width and height of each of these.
            good: which of the rows they are.
        """
        ...


class Classes:
    """`target` int32; `top_classes` int32, `top_names` and `top_probabilities`, lists of the
    likeliest classes; `logits` float32 [classes]."""

    def __init__(self, classes: int, top: int) -> None:
        self._top = min(top, classes)
        self.fields = [
            ("target", pyarrow.int32()),
            ("top_classes", pyarrow.list_(pyarrow.int32())),
            ("top_names", pyarrow.list_(pyarrow.string())),
            ("top_probabilities", pyarrow.list_(pyarrow.float32())),
            ("logits", pyarrow.list_(pyarrow.float32(), classes)),
        ]
        self.floats, self.repeating = ["logits.list.element"], ["top_names.list.element"]

    def of(
        self,
        explanation: Explanation,
        sizes: Sequence[tuple[int, int]],
        good: NDArray[np.bool_],
    ) -> list[Any]:
        ranking = np.argsort(-explanation.logits, axis=1, kind="stable")[:, : self._top]
        probabilities = np.take_along_axis(explanation.probabilities, ranking, axis=1)
        names = [[explanation.name(index) for index in row] for row in ranking]
        return [
            spread(explanation.targets.reshape(len(explanation)).tolist(), good),
            spread(ranking.tolist(), good),
            spread(names, good),
            spread(probabilities.tolist(), good),
            fixed(explanation.logits.astype(np.float32), good),
        ]


class Objectives:
    """`objective`, the number that is explained; `target` int32 and `name`, where it chooses a
    class, -1 for none; of a detector `box`, left, top, right and bottom in pixels of the image; and
    each of the network's outputs that has few numbers, flat, as `output.NAME`."""

    def __init__(self, explainer: Explainer) -> None:
        signature, self._pre = explainer.backend.signature, explainer.metadata.preprocessing
        explained = explainer.metadata.objective
        self._named, self._boxed = bool(explained.classes), EXPLAINED_BOX in signature.outputs
        self._axes = {name: explained.batch_axis(name) for name in signature.outputs}
        self._sizes = {
            name: _numbers(port.shape, self._axes[name])
            for name, port in signature.outputs.items()
            if name not in (EXPLAINED_BOX, EXPLAINED_CLASS)
        }
        self._sizes = {name: size for name, size in self._sizes.items() if 0 < size <= _MOST}
        kinds = {
            name: pyarrow.from_numpy_dtype(np.dtype(signature.outputs[name].dtype))
            for name in self._sizes
        }
        self.fields = [
            ("objective", pyarrow.float64()),
            *([("target", pyarrow.int32()), ("name", pyarrow.string())] if self._named else []),
            *([("box", pyarrow.list_(pyarrow.float64(), 4))] if self._boxed else []),
            *(
                (f"output.{name}", pyarrow.list_(kinds[name], size))
                for name, size in self._sizes.items()
            ),
        ]
        self.floats: list[str] = []
        self.repeating = ["name"] if self._named else []

    def of(
        self,
        explanation: Explanation,
        sizes: Sequence[tuple[int, int]],
        good: NDArray[np.bool_],
    ) -> list[Any]:
        assert explanation.objective is not None
        images, outputs = len(explanation), explanation.outputs
        columns: list[Any] = [spread(explanation.objective.reshape(images).tolist(), good)]
        if self._named:
            targets = explanation.targets.reshape(images).tolist()
            columns += [
                spread(targets, good),
                spread([explanation.name(target) for target in targets], good),
            ]
        if self._boxed:
            boxes = outputs[EXPLAINED_BOX].reshape(images, 4)
            placed = [
                box_in_photograph(box, size, self._pre)
                for box, size in zip(boxes, sizes, strict=True)
            ]
            columns.append(fixed(np.stack(placed), good))
        for name in self._sizes:
            axis = self._axes[name]
            assert axis is not None
            columns.append(fixed(np.moveaxis(outputs[name], axis, 0).reshape(images, -1), good))
        return columns


def _numbers(shape: tuple[int | None, ...], batch: int | None) -> int:
    """How many an image has; 0 where that is not known."""
    sizes = [size for axis, size in enumerate(shape) if axis != batch]
    return 0 if batch is None or None in sizes else math.prod(size or 0 for size in sizes)


def spread(values: Sequence[Any], good: NDArray[np.bool_]) -> list[Any]:
    """The values at the places of the good images, None at the others."""
    following = iter(values)
    return [next(following) if here else None for here in good]


def fixed(values: NDArray[Any], good: NDArray[np.bool_]) -> pyarrow.Array:
    """A row of `values` for each good image, null for the others."""
    full = values
    if not good.all():
        full = np.zeros((len(good), values.shape[1]), values.dtype)
        full[good] = values
    flat = pyarrow.array(full.reshape(-1))
    return pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pyarrow.array(~good))
