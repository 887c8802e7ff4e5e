"""What comes out: logits, pullbacks, and the pictures of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract.estimator import CONVERGENCE_DELTA
from onnxplain.contract.explain import ATTENTION, LOGITS, PULLBACK, Preprocessing
from onnxplain.contract.objective import (
    CONCEPT_RELEVANCE,
    EXPLAINED_BOX,
    EXPLAINED_CLASS,
    MASK,
    OBJECTIVE,
    Explained,
)
from onnxplain.contract.picture import HEATMAP, PICTURE, PULLBACK_STYLE, PictureOptions
from onnxplain.contract.pixels import PHOTOGRAPH
from onnxplain.options import documented
from onnxplain.runtime.inputs.batches import ImageLike, box_in_photograph
from onnxplain.runtime.inputs.targets import resolve
from onnxplain.runtime.outputs import of_images
from onnxplain.runtime.pictures import notebook
from onnxplain.runtime.pictures.canvas import region_in_photograph
from onnxplain.runtime.pictures.figures import Row, draw, write_image
from onnxplain.runtime.pictures.render import scaled
from onnxplain.runtime.predictions import Predictions
from onnxplain.runtime.signature import Signature


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Predictions):
    """The explanation of N images for one target each, or for K.

    Attributes:
        logits: [N,classes], of the graph's float dtype; of no columns where the network is no
            classifier.
        pullback: [N,C,H,W], or [N,K,C,H,W] from a graph exported with --multi-target. Channels
            come first also where the graph's layout is NHWC.
        targets: the explained class indices, int64 [N] or [N,K]; none negative, but for -1 where no
            one class is explained: what then is, `explained.no_class` says ("nothing found").
        photographs: what the network saw, uint8 [N,H,W,3].
        class_names: one for each class; empty when the file has none.
        activation: what makes the logits probabilities, "softmax" or "sigmoid".
        outputs: what the network puts out, by name, and what its objective tells beside itself.
            Each has the images along its batch axis; one of which that is not known is whole, also
            in the explanation of some of the images.
        objective: the scalar of each that is explained, [N] or [N,K]; None of a classifier.
        explained: what the file says of it.
        given: what it was given besides image and target, [N, …], by name.
        method: by which it is explained, with its parameters.
        sources: the images themselves, as they were given, a part of which the network saw; None
            of floats. Empty where they are not known.
        preprocessing: how they became the network's input.
        on_photograph: whether pullback and photographs are the whole images' (`--geometry
            photograph`), and not what the network saw.
    """

    logits: NDArray[Any]
    pullback: NDArray[Any]
    targets: NDArray[np.int64]
    photographs: NDArray[np.uint8]
    class_names: tuple[str, ...]
    activation: str = "softmax"
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    objective: NDArray[Any] | None = None
    explained: Explained = field(default_factory=Explained)
    given: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    method: str = ""
    sources: Sequence[ImageLike | None] = ()
    preprocessing: Preprocessing | None = None
    on_photograph: bool = False

    def __len__(self) -> int:
        return len(self.pullback)

    def __getitem__(self, index: int | slice | NDArray[np.intp]) -> Explanation:
        """The explanation of one image, as one of length 1, or of those of a slice or of several
        indices."""
        chosen = [range(len(self))[index]] if isinstance(index, int | np.integer) else index
        return Explanation(
            self.logits[chosen],
            self.pullback[chosen],
            self.targets[chosen],
            self.photographs[chosen],
            self.class_names,
            self.activation,
            of_images(self.explained, self.outputs, chosen),
            None if self.objective is None else self.objective[chosen],
            self.explained,
            {name: array[chosen] for name, array in self.given.items()},
            self.method,
            [self.sources[i] for i in np.arange(len(self))[chosen]] if self.sources else (),
            self.preprocessing,
            self.on_photograph,
        )

    @property
    def picture(self) -> NDArray[np.uint8] | None:
        """The picture that the graph drew, [N,h,w,3] or [N,K,h,w,3]; None of a file exported
        without picture=."""
        return self.outputs.get(PICTURE)

    @property
    def convergence_delta(self) -> NDArray[Any] | None:
        """By how much the attributions' sum misses the difference of the objective between image
        and baseline, [N] or [N,K]; None where the file's estimator does not tell."""
        return self.outputs.get(CONVERGENCE_DELTA)

    @property
    def concept_relevance(self) -> NDArray[Any] | None:
        """The relevance of each channel of the layer that is a condition, [N,C] or [N,K,C], before
        the condition; None of a file exported without --concept-layer."""
        return self.outputs.get(CONCEPT_RELEVANCE)

    @property
    def attentions(self) -> dict[str, NDArray[Any]]:
        """What each layer's softmax of attention gave, by the layer's name, the first one first:
        [N,heads,queries,keys], or [N,windows,heads,queries,keys]; of a file exported with
        --attentions, else empty."""
        return {
            name.removeprefix(ATTENTION): array
            for name, array in self.outputs.items()
            if name.startswith(ATTENTION)
        }

    @property
    def relevance_sum(self) -> NDArray[Any]:
        """The sum of the pullback over the image, float64 [N] or [N,K].

        Of relevances it is what has arrived at the pixels. Of a class's logit 1 has been sent out,
        of another objective its value (where it is linear in what it reads).
        """
        total: NDArray[Any] = self.pullback.sum((-3, -2, -1), np.float64)
        return total

    def _explanations(self) -> list[NDArray[Any]]:
        return [self.pullback]

    def heatmap(self, **options: Any) -> NDArray[np.float32]:
        """Where the pullback is strong: float32 [N,H,W] or [N,K,H,W] in [0, 1], or where it is
        `signed` in [-1, 1].

        The sum over channels of |pullback|, smoothed by a Gaussian whose sigma is 2 % of the
        shorter side, divided by its 99th percentile (per image and target), and clipped.
        A pullback of zeros gives zeros.

        Args:
            options: signed, percentile and smoothing, as for `draw`.

        Raises:
            InputError: options that are not as declared.
        """
        look = PictureOptions(style=HEATMAP, **options)
        look.check()
        return scaled(self.pullback, look)[0]

    def draw(self, style: str = PULLBACK_STYLE, **options: Any) -> Image.Image:
        """One picture of it all: images are its rows, targets its columns.

        Args:
            style: one of `onnxplain.contract.picture.STYLES`.
            options: the other fields of `onnxplain.contract.picture.PictureOptions`:
                options:

        Raises:
            InputError: options that are not as declared, or do not go together; or a photograph
                that can no longer be read.
        """
        return draw(self.rows(), PictureOptions(style=style, **options))

    def save(
        self, path: str | os.PathLike[str], style: str = PULLBACK_STYLE, **options: Any
    ) -> None:
        """Write what `draw` draws; the suffix of `path` decides the format.

        An existing file is replaced as a whole or not at all.

        Raises:
            InputError: as `draw`; an unknown suffix, or a path that cannot be written.
        """
        write_image(self.draw(style, **options), Path(path))

    def _repr_html_(self) -> str:
        """What Jupyter shows: pictures and the likeliest classes of the first images."""
        return notebook.table(self[: notebook.IMAGES].rows(), len(self))

    def _repr_png_(self) -> bytes:
        """The same as a picture, for what shows no HTML."""
        return notebook.png(self[: notebook.IMAGES].rows())

    def rows(self) -> list[Row]:
        """What pictures are drawn from, a row for each image."""
        images, explained = len(self), self.explained
        pullbacks = self.pullback.reshape(images, -1, *self.pullback.shape[-3:])
        if self.is_of_class:
            values, predictions = self.target_probabilities, self.labels()
            names = np.array(self.names, dtype=object)
        else:
            assert self.objective is not None
            values, predictions = self.objective, [[] for _ in range(images)]
            named = self.names if explained.classes else [explained.name] * values.size
            names = np.array(named, dtype=object)
        names, values = names.reshape(images, -1), values.reshape(images, -1)
        boxes, pre = self.outputs.get(EXPLAINED_BOX), self.preprocessing
        if self.on_photograph and boxes is not None and pre is not None:
            height, width = self.photographs.shape[1:3]
            boxes = box_in_photograph(boxes, (width, height), pre)
        masks = [name for name, one in explained.inputs.items() if one.kind == MASK]
        regions = [self.given[name] for name in masks if name in self.given]
        return [
            Row(
                self.photographs[i],
                pullbacks[i],
                predictions[i],
                list(zip(names[i], values[i].tolist(), strict=True)),
                self.is_of_class,
                None if boxes is None else boxes[i].reshape(-1, 4),
                next((self._shown(region[i]) for region in regions if region[i].any()), None),
                self.method,
                self.sources[i] if self.sources and not self.on_photograph else None,
                None if self.on_photograph else pre,
                self.on_photograph,
            )
            for i in range(images)
        ]

    def _shown(self, region: NDArray[Any]) -> NDArray[Any]:
        """A region of what the network saw as one of what `photographs` show."""
        if not self.on_photograph or self.preprocessing is None:
            return region
        height, width = self.photographs.shape[1:3]
        return region_in_photograph(region, (width, height), self.preprocessing)


def explanation_of(
    signature: Signature,
    outputs: Mapping[str, NDArray[Any]],
    targets: NDArray[np.int64],
    photographs: NDArray[np.uint8],
    inputs: Mapping[str, NDArray[Any]],
) -> Explanation:
    """What a graph's outputs explain.

    Args:
        outputs: by name, as `Explainer.answer` returns them.
        targets, inputs: what the graph was given besides the images.
        photographs: uint8 [N,H,W,3].
    """
    metadata = signature.metadata
    explained, images = metadata.objective, len(outputs[PULLBACK])
    if explained.is_class:
        logits = outputs[LOGITS]
        targets = resolve(targets, logits)
    else:
        logits = np.zeros((images, 0), signature.dtype)
        targets = np.asarray(outputs.get(EXPLAINED_CLASS, targets), np.int64)
    return Explanation(
        logits,
        outputs[PULLBACK],
        targets,
        photographs,
        metadata.labels,
        metadata.activation,
        {name: outputs[name] for name in signature.outputs if name in outputs},
        outputs.get(OBJECTIVE),
        explained,
        {n: inputs[n] for n, one in explained.inputs.items() if one.kind == MASK},
        metadata.described_method,
        preprocessing=metadata.preprocessing,
        on_photograph=metadata.pixels.geometry == PHOTOGRAPH,
    )


Explanation.draw.__doc__ = str(Explanation.draw.__doc__).replace(
    "options:\n", f"{documented(PictureOptions, 16)}\n"
)
