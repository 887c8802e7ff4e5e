"""Grids of images × classes: the difference that an ascent towards each class makes.

As in Figure 1 of Satkiewicz, arXiv 2507.22832: the diagonal is each image's own class, off it are
counterfactuals, and one random class comes last. Of an objective that has no target there is one
column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract.explain import TEMPERATURE
from onnxplain.printable import Brief
from onnxplain.runtime.ascent import Accentuation, accentuate
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.explanation import Explanation
from onnxplain.runtime.inputs.batches import ImageLike
from onnxplain.runtime.inputs.objective import repeated
from onnxplain.runtime.inputs.scalars import Temperatures, live_inputs
from onnxplain.runtime.inputs.targets import fixed_targets, resolve, target_input
from onnxplain.runtime.pictures.canvas import Canvas
from onnxplain.runtime.pictures.figures import Row
from onnxplain.runtime.pictures.render import Cell, grid, signed_image


@dataclass(frozen=True, eq=False, repr=False)
class Grid(Brief):
    """Images [N], what is explained of each at the start, and the K targets to ascend towards, None
    where the objective has none; `inputs` are what it takes besides."""

    images: list[ImageLike]
    rows: list[Row]
    targets: Sequence[int | None]
    names: list[str]
    inputs: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        explainer: Explainer,
        images: Sequence[ImageLike],
        targets: Sequence[int | str] | None,
        inputs: Mapping[str, Any] = MappingProxyType({}),
    ) -> Grid:
        """The classes given, or those predicted for the images and a random one (seed 0).

        A negative class counts from the top of the first image's ranking; of no classifier, of each
        image's own.

        Raises:
            InputError: an image or a class that cannot be used.
        """
        images = list(images)
        explainer.metadata.require_input("a grid of counterfactuals")
        signature = explainer.backend.signature
        first = explainer(images, **inputs)
        columns: Sequence[int | None]
        if targets is None:
            own = fixed_targets(signature, first.targets, None)
            columns = [None] if own is None else _columns(own.reshape(-1), signature.classes)
        else:
            wanted = target_input(signature, list(targets), len(targets))
            if explainer.metadata.objective.is_class:
                wanted = resolve(wanted, first.logits[:1].repeat(len(wanted), axis=0))
            columns = wanted.reshape(-1).tolist()
        return cls(
            images,
            first.rows(),
            columns,
            [_column_name(first, column) for column in columns],
            inputs,
        )

    def ascend(
        self,
        explainer: Explainer,
        temperature: Temperatures,
        inputs: Mapping[str, Any] | None = None,
        **ascent: Any,
    ) -> Accentuation:
        """The ascents of all images towards all classes, [N·K].

        Args:
            inputs: what this explainer's objective takes besides; None for what the grid has, whose
                boxes and regions lie where the grid's own explainer sees them.
            ascent: what else `accentuate` takes.
        """
        N, K = len(self.rows), len(self.targets)
        targets = [target for target in self.targets if target is not None] * N
        return accentuate(
            explainer,
            [image for image in self.images for _ in range(K)],
            targets or None,
            temperature=temperature,
            inputs=repeated(
                explainer.backend.signature, self.inputs if inputs is None else inputs, N, K
            ),
            **ascent,
        )

    def draw(
        self,
        explainers: Sequence[Explainer],
        ascents: Sequence[Accentuation],
        temperatures: Sequence[Temperatures],
    ) -> Image.Image:
        """A row per image and explainer; cells are the differences, with probabilities."""
        K = len(self.targets)
        rows, titles = [], []
        for i, of in enumerate(self.rows):
            name, value = _start(of)
            for explainer, ascent, T in zip(explainers, ascents, temperatures, strict=True):
                photograph = of.shown(Canvas.of_network(of.photograph))
                row = [Cell(photograph, f"{name}\n{of.number(value)}")]
                for j in range(i * K, (i + 1) * K):
                    change = f"{of.number(ascent.before[j])} to {of.number(ascent.after[j])}"
                    row.append(Cell(signed_image(ascent.difference[j]), f"\n{change}"))
                rows.append(row)
                titles.append(_title(explainer, T))
        start = "predicted" if self.rows[0].probable else "explained"
        return grid(rows, [start, *self.names], titles if len(explainers) > 1 else ())

    def told(self, ascent: Accentuation) -> list[str]:
        """A line per image: each target's probability, or objective, before and after."""
        K, lines = len(self.targets), []
        for i, of in enumerate(self.rows):
            changes = [
                f"{target} {of.number(ascent.before[j])} to {of.number(ascent.after[j])}"
                for j, target in enumerate(self.names, i * K)
            ]
            name, value = _start(of)
            lines.append(f"{name}, {of.number(value)}: {'; '.join(changes)}")
        return lines


def _columns(own: NDArray[np.int64], classes: int) -> list[int]:
    """What the images are explained by, and a random class where there are others."""
    columns = dict.fromkeys(own.tolist())
    others = np.setdiff1d(np.arange(classes), own)
    return [*columns, *np.random.default_rng(0).choice(others, min(1, len(others))).tolist()]


def _column_name(explanation: Explanation, target: int | None) -> str:
    if target is None:
        return explanation.explained.name
    return explanation.name(target) if target >= 0 else f"target {target}"


def _start(row: Row) -> tuple[str, float]:
    """Name and number of what is predicted, or explained by default."""
    return [*row.predictions, *row.targets][0]


def _title(explainer: Explainer, temperature: Temperatures) -> str:
    """The method with its temperature, and with what else is live."""
    live = {
        name: float(x) for name, x in live_inputs(explainer.backend.signature, temperature).items()
    }
    exported = explainer.metadata.parameters.get(TEMPERATURE)
    shown = ({} if exported is None else {TEMPERATURE: exported}) | live
    lines = [f"{'T' if name == TEMPERATURE else name} = {x:.2g}" for name, x in shown.items()]
    return "\n".join([explainer.metadata.method, *lines])
