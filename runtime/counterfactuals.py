"""Grids of images × classes: the difference that an ascent towards each class makes.

As in Figure 1 of Satkiewicz, arXiv 2507.22832: the diagonal is each image's own class, off it are
counterfactuals, and one random class comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract.explain import TEMPERATURE
from onnxplain.runtime.ascent import Accentuation, accentuate
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.inputs.batches import ImageLike
from onnxplain.runtime.inputs.scalars import Temperatures, live_inputs
from onnxplain.runtime.inputs.targets import as_indices, resolve
from onnxplain.runtime.pictures.render import Cell, grid, signed_image


@dataclass(frozen=True, eq=False)
class Grid:
    """Images [N] and the classes [K] to ascend towards; `photographs` uint8 [N,H,W,3]."""

    images: list[ImageLike]
    photographs: NDArray[np.uint8]
    predicted: list[tuple[str, float]]
    targets: NDArray[np.int64]
    names: list[str]

    @classmethod
    def of(
        cls, explainer: Explainer, images: Sequence[ImageLike], targets: Sequence[int | str] | None
    ) -> Grid:
        """The classes given, or those predicted for the images and a random one (seed 0).

        A negative class counts from the top of the first image's ranking.

        Raises:
            InputError: an image or a class that cannot be used.
        """
        images = list(images)
        explainer.metadata.require_image("a grid of counterfactuals")
        explainer.metadata.objective.require_classifier("a grid of counterfactuals")
        first = explainer(images)
        if targets is None:
            own = list(dict.fromkeys(first.targets.reshape(-1).tolist()))
            others = np.delete(np.arange(first.logits.shape[1]), own)
            columns = [*own, int(np.random.default_rng(0).choice(others))]
        else:
            classes = explainer.backend.signature.classes
            wanted = as_indices(list(targets), len(targets), classes, explainer.labels, False)
            columns = resolve(wanted, first.logits[:1].repeat(len(wanted), axis=0)).tolist()
        return cls(
            images,
            first.photographs,
            [top[0] for top in first.labels(1)],
            np.array(columns),
            [first.name(column) for column in columns],
        )

    def ascend(
        self,
        explainer: Explainer,
        temperature: Temperatures,
        **ascent: Any,
    ) -> Accentuation:
        """The ascents of all images towards all classes, [N·K].

        Args:
            ascent: what else `accentuate` takes.
        """
        K = len(self.targets)
        return accentuate(
            explainer,
            [image for image in self.images for _ in range(K)],
            np.tile(self.targets, len(self.images)),
            temperature=temperature,
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
        for i, (name, probability) in enumerate(self.predicted):
            for explainer, ascent, T in zip(explainers, ascents, temperatures, strict=True):
                photograph = Image.fromarray(self.photographs[i])
                row = [Cell(photograph, f"{name}\n{probability:.1%}")]
                for j in range(i * K, (i + 1) * K):
                    change = f"{ascent.before[j]:.1%} to {ascent.after[j]:.1%}"
                    row.append(Cell(signed_image(ascent.difference[j]), f"\n{change}"))
                rows.append(row)
                titles.append(_title(explainer, T))
        return grid(rows, ["predicted", *self.names], titles if len(explainers) > 1 else ())

    def told(self, ascent: Accentuation) -> list[str]:
        """A line per image: each target's probability before and after."""
        K, lines = len(self.targets), []
        for i, (name, probability) in enumerate(self.predicted):
            changes = [
                f"{target} {ascent.before[j]:.1%} to {ascent.after[j]:.1%}"
                for j, target in enumerate(self.names, i * K)
            ]
            lines.append(f"{name}, {probability:.1%}: {'; '.join(changes)}")
        return lines


def _title(explainer: Explainer, temperature: Temperatures) -> str:
    """The method with its temperature, and with what else is live."""
    live = {
        name: float(x) for name, x in live_inputs(explainer.backend.signature, temperature).items()
    }
    exported = explainer.metadata.parameters.get(TEMPERATURE)
    shown = ({} if exported is None else {TEMPERATURE: exported}) | live
    lines = [f"{'T' if name == TEMPERATURE else name} = {x:.2g}" for name, x in shown.items()]
    return "\n".join([explainer.metadata.method, *lines])
