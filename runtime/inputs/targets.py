"""From what a caller calls a target to the class indices that the graph takes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import TARGET
from onnxplain.errors import InputError
from onnxplain.runtime.signature import Signature

Target: TypeAlias = int | str
Targets: TypeAlias = (
    Target | Sequence[Target] | Sequence[Sequence[Target]] | NDArray[np.integer[Any]] | None
)
"""An index (negative: from the top of the ranking, -1 the predicted class) or a class name, for
all images; or one per image, [N]; or several per image, [N,K]. None is the predicted class."""

_CANDIDATES = 5


def target_input(signature: Signature, targets: Targets, images: int) -> NDArray[np.int64]:
    """The graph's `target`, [N] or [N,K], none negative but those that count from the top.

    Zeros, [N], where the objective has none.

    Args:
        targets: as a caller has them; None for the objective's default.

    Raises:
        InputError: one that cannot be used, or any where the objective has none.
    """
    metadata, explained = signature.metadata, signature.metadata.objective
    if not signature.has_target:
        if targets is not None:
            raise InputError(f"objective {explained.name!r} has no target: leave it out")
        return np.zeros(images, np.int64)
    if targets is None and not explained.is_class:
        targets = int(explained.inputs[TARGET].default or 0)
    ranks = None if explained.is_class else explained.ranks
    classes, several = signature.classes, signature.multi_target
    return as_indices(targets, images, classes, metadata.labels, several, ranks)


def fixed_targets(
    signature: Signature, found: NDArray[np.int64], targets: Targets
) -> NDArray[np.int64] | None:
    """What stays explained while images change: the classes that were, [N]; where none was, what
    was asked for. None where the objective has no target.

    Args:
        found: the classes that were explained, [N]; -1 where none was.
        targets: what was asked for.
    """
    if not signature.has_target:
        return None
    if not (found < 0).any():
        return found
    return np.where(found < 0, target_input(signature, targets, len(found)), found)


def as_indices(
    targets: Targets,
    images: int,
    classes: int,
    labels: Sequence[str],
    multi_target: bool,
    ranks: int | None = None,
) -> NDArray[np.int64]:
    """The graph's `target` input, [N] or [N,K], negative where the caller counts from the top.

    Args:
        ranks: how far down a negative one may count; None for all classes.

    Raises:
        InputError: a wrong type, shape or range; a class name that is unknown or ambiguous.
    """
    ranks = classes if ranks is None else ranks
    indices = _indices(-1 if targets is None else targets, classes, labels, ranks)
    if isinstance(indices, int):
        indices = [indices] * images
    try:
        array = np.array(indices, dtype=np.int64)
    except ValueError:
        raise InputError("every image needs the same number of targets") from None
    if array.ndim == 2 and not multi_target:
        raise InputError(
            "this graph explains one target per image; export it with multi_target=True for "
            "several, or pass one target per image"
        )
    if array.shape[:1] != (images,) or array.ndim not in (1, 2) or array.size == 0:
        shapes = f"[{images}] or [{images}, K]" if multi_target else f"[{images}]"
        raise InputError(
            f"targets for {images} images have the shape {shapes}, not {list(array.shape)}"
        )
    return array[:, None] if multi_target and array.ndim == 1 else array


def resolve(targets: NDArray[np.int64], logits: NDArray[Any]) -> NDArray[np.int64]:
    """The class indices that the graph explained: those from the top looked up in the ranking."""
    ranking = np.argsort(-logits, axis=1, kind="stable")
    columns = targets.reshape(len(targets), -1)
    ranked = np.take_along_axis(ranking, np.maximum(-1 - columns, 0), axis=1)
    return np.where(columns < 0, ranked, columns).reshape(targets.shape)


def _indices(target: Any, classes: int, labels: Sequence[str], ranks: int, within: int = 3) -> Any:
    """The same nesting of lists, of at most `within` levels, with Python integers at its leaves."""
    if isinstance(target, np.ndarray):
        target = target.tolist()
    if isinstance(target, str):
        return find_class(target, labels)
    if isinstance(target, Sequence):
        if not within:
            raise InputError("targets are an index or a name, a list of them, or lists in a list")
        return [_indices(entry, classes, labels, ranks, within - 1) for entry in target]
    if isinstance(target, bool) or not isinstance(target, (int, np.integer)):
        raise InputError(
            f"a target is a class index or a class name, not {target!r} ({type(target).__name__})"
        )
    if not -ranks <= target < classes:
        if ranks != classes:
            raise InputError(
                f"target {target} is out of range: it is from 0 to {classes - 1}, or from -1 (the "
                f"best) down to -{ranks}"
            )
        raise InputError(
            f"target {target} is out of range: the network has {classes} classes, so a target is "
            f"from 0 to {classes - 1}, or from -1 (the predicted class) down to -{classes}"
        )
    return int(target)


def find_class(name: str, labels: Sequence[str]) -> int:
    """The index of the class of that name, or else of the only one whose name contains it.

    Upper and lower case are the same.

    Raises:
        InputError: the name is unknown or ambiguous; names up to five candidates.
    """
    if not labels:
        raise InputError(f"the file has no class names; give the index instead of '{name}'")
    wanted, folded = name.casefold(), [label.casefold() for label in labels]
    matches = [i for i, label in enumerate(folded) if label == wanted]
    matches = matches or [i for i, label in enumerate(folded) if wanted in label]
    if len(matches) == 1:
        return matches[0]
    if matches:
        problem, hint = "ambiguous", "give more of the name, or the index: "
    else:
        problem, hint = "unknown", "closest: "
        close = difflib.get_close_matches(wanted, folded, _CANDIDATES)
        matches = [i for i, label in enumerate(folded) if label in close]
    candidates = ", ".join(f"{labels[i]} ({i})" for i in matches[:_CANDIDATES])
    more = ", …" if len(matches) > _CANDIDATES else ""
    raise InputError(
        f"class name '{name}' is {problem}" + (f"; {hint}{candidates}{more}" if candidates else "")
    )
