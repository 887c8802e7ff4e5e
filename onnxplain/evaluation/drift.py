"""Do two files still explain alike? Two versions of a network, or two precisions of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from onnxplain.errors import InputError
from onnxplain.evaluation.alike import CLASS, MEASURES
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.explanation import Explanation
from onnxplain.runtime.inputs.images import load_image
from onnxplain.runtime.inputs.targets import Target, fixed_targets, target_input

Answer: TypeAlias = Explanation | InputError
"""An explanation, or why there is none."""

ALLOWED = 0.1
"""The share of the images that may have drifted: a class near the boundary changes by rounding."""


@dataclass(frozen=True)
class ImageDrift:
    """What was measured of one image.

    Attributes:
        path: its file.
        target: what both explained, by its name.
        asked: what was asked for: None for the class that the reference predicts.
        measured: by the measures' names; empty where it could not be measured.
        problem: why it could not; else empty.
        below: the measures that are below their thresholds.
        margin: the least of measure less threshold; of what could not be measured, minus infinity.
    """

    path: Path
    target: str = ""
    asked: Target | None = None
    measured: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""
    below: Sequence[str] = ()
    margin: float = -np.inf

    @property
    def drifted(self) -> bool:
        return bool(self.problem or self.below)


@dataclass(frozen=True)
class Drift:
    """What was measured of all images, in their order.

    Attributes:
        images: one each; those whose file cannot be read are in `unreadable` alone.
        thresholds: by the measures' names.
        allowed: the share of the images that may have drifted.
        unreadable: files that are no images, with the reason.
    """

    images: Sequence[ImageDrift]
    thresholds: Mapping[str, float]
    allowed: float
    unreadable: Sequence[tuple[Path, str]] = ()

    @property
    def share(self) -> float:
        """Of the images, of those that have drifted."""
        return sum(image.drifted for image in self.images) / len(self.images)

    @property
    def passed(self) -> bool:
        return self.share <= self.allowed

    @property
    def verdict(self) -> str:
        """The same in words."""
        count = sum(image.drifted for image in self.images)
        of = f"{count} of {len(self.images)} images have drifted, {self.allowed:.0%} may"
        return f"{of}: {'passed' if self.passed else 'failed'}"

    @property
    def worst(self) -> list[ImageDrift]:
        """All of them, the one furthest below its thresholds first."""
        return sorted(self.images, key=lambda image: image.margin)

    def quantile(self, measure: str, at: float) -> float:
        """Of one measure over the images; NaN where none could be measured."""
        values = [image.measured[measure] for image in self.images if image.measured]
        return float(np.quantile(values, at)) if values else np.nan

    def record(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "passed": self.passed,
            "drifted": self.share,
            "allowed": self.allowed,
            "thresholds": dict(self.thresholds),
            "median": {
                name: self.quantile(name, 0.5) if any(i.measured for i in self.images) else None
                for name in self.thresholds
            },
            "images": [
                {
                    "path": str(image.path),
                    "target": image.target,
                    "below": list(image.below),
                    "problem": image.problem,
                    **image.measured,
                }
                for image in self.images
            ],
            "unreadable": [
                {"path": str(path), "problem": problem} for path, problem in self.unreadable
            ],
        }


def compare(
    new: Explainer,
    reference: Explainer,
    paths: Sequence[Path],
    *,
    targets: Sequence[Target | None] | None = None,
    thresholds: Mapping[str, float] = MappingProxyType({}),
    allowed: float = ALLOWED,
    progress: Callable[[int], None] | None = None,
) -> Drift:
    """Explain images by two files, for the same targets, and measure how alike the answers are.

    Args:
        new: what is to replace `reference`.
        paths: image files.
        targets: an index or a name for each, or None for all or some: the class that the reference
            predicts, and of what is no classifier what each file explains by itself.
        thresholds: by the names of `MEASURES`, in place of theirs.
        allowed: the share of the images that may fall below a threshold, in [0, 1].
        progress: called with 1, 2, … as each image is done.

    Raises:
        InputError: no image, or none that can be read; a threshold of an unknown name, or of what
            is no number; `targets` that are not one for each image, or no class; or files whose
            explanations cannot be compared: of other objectives, numbers of classes or sizes.
        BackendError: a runtime failed, or a file explains no images.
    """
    asked = thresholds_for(new, reference, thresholds)
    if not 0 <= allowed <= 1:
        raise InputError(f"allowed is a share from 0 to 1, not {allowed}")
    if targets is not None and len(targets) != len(paths):
        raise InputError(f"targets are one for each of {len(paths)} images, not {len(targets)}")
    for target in targets or ():
        target_input(reference.backend.signature, target, 1)
    images, unreadable = [], []
    for done, path in enumerate(paths, 1):
        target = None if targets is None else targets[done - 1]
        try:
            picture = load_image(path)
        except InputError as error:
            unreadable.append((path, str(error)))
        else:
            pair = explained(new, reference, picture, target)
            images.append(_measured(path, target, *pair, asked))
        if progress:
            progress(done)
    if not images:
        raise InputError(f"none of {len(paths)} images can be read: {unreadable[0][1]}")
    return Drift(images, asked, allowed, unreadable)


def explained(
    new: Explainer, reference: Explainer, picture: Any, target: Target | None = None
) -> tuple[Answer, Answer]:
    """An image by the reference, and by the new file for the same target; where the reference has
    none, the same reason for both.

    Raises:
        InputError: the two are of other sizes.
        BackendError: a runtime failed.
    """
    try:
        right = _alone(reference(picture, target))
    except InputError as error:
        return error, error
    fixed = fixed_targets(reference.backend.signature, right.targets, target)
    try:
        found = _alone(new(picture, fixed))
    except InputError as error:
        return right, error
    if found.pullback.shape != right.pullback.shape:
        sizes = [list(one.pullback.shape[1:]) for one in (right, found)]
        raise InputError(
            f"the reference's pullback has the shape {sizes[0]}, and the other {sizes[1]}: they "
            "cannot be compared pixel by pixel"
        )
    return right, found


def thresholds_for(
    new: Explainer, reference: Explainer, given: Mapping[str, float] = MappingProxyType({})
) -> dict[str, float]:
    """What two files are held to, by the measures' names: the class of a classifier alone.

    Raises:
        InputError: an unknown name, or what is no number; or files that cannot be compared.
        BackendError: a file explains no images.
    """
    for explainer in (new, reference):
        explainer.metadata.require_input("drift")
    kinds = [one.metadata.objective.name for one in (reference, new)]
    if kinds[0] != kinds[1]:
        raise InputError(f"the reference explains {kinds[0]}, and the other {kinds[1]}")
    classes = [one.backend.signature.classes for one in (reference, new)]
    if reference.metadata.objective.is_class and classes[0] != classes[1]:
        raise InputError(f"the reference has {classes[0]} classes, and the other {classes[1]}")
    names = [n for n in MEASURES if n != CLASS or reference.metadata.objective.is_class]
    for name, value in given.items():
        if name not in names:
            raise InputError(f"a threshold is of {', '.join(names)}, not of {name!r}")
        if not np.isfinite(value):
            raise InputError(f"the threshold of {name} is a number, not {value}")
    return {name: given.get(name, MEASURES[name].least) for name in names}


def _alone(explanation: Explanation) -> Explanation:
    """That of one image; of a file of several targets, of its one target."""
    if explanation.targets.ndim == 1:
        return explanation
    return replace(explanation, pullback=explanation.pullback[:, 0])


def _measured(
    path: Path,
    asked: Target | None,
    right: Answer,
    found: Answer,
    least: Mapping[str, float],
) -> ImageDrift:
    if isinstance(right, InputError):
        said = "" if asked is None else str(asked)
        return ImageDrift(path, said, asked, problem=f"the reference: {right}")
    target = str(np.ravel(np.array(right.names, dtype=object))[0])
    if isinstance(found, InputError):
        return ImageDrift(path, target, asked, problem=str(found))
    measured = {name: MEASURES[name].compare(right, found) for name in least}
    margins = {name: measured[name] - bound for name, bound in least.items()}
    below = [name for name, margin in margins.items() if not margin >= 0]
    return ImageDrift(path, target, asked, measured, "", below, min(margins.values()))
