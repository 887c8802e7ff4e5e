"""Many image files explained on one web page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from onnxplain.contract.explain import Metadata
from onnxplain.contract.picture import GRID, OVERLAY, PictureOptions
from onnxplain.errors import BackendError, InputError
from onnxplain.files import replacing
from onnxplain.runtime.ascent import accentuate
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.folder import size_refusal
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.runtime.inputs.images import load_image
from onnxplain.runtime.inputs.objective import on_photograph
from onnxplain.runtime.pictures import page
from onnxplain.runtime.pictures.markup import Markup, now

OVERLAID = PictureOptions(style=OVERLAY)
"""How a report shows where a pullback is strong, unless it is told otherwise."""


def write_report(
    explainer: Explainer,
    images: Sequence[Path],
    path: Path,
    *,
    targets_per_image: int = 1,
    steps: int = 5,
    progress: Callable[[int], None] | None = None,
    inputs: Mapping[str, Any] = MappingProxyType({}),
    look: PictureOptions = OVERLAID,
) -> list[tuple[Path, str]]:
    """Explain image files on one HTML page, which opens from disk and asks the network for nothing.

    For each image it shows the photograph as the network saw it and the five likeliest classes, and
    for each target the pullback, heatmap, accentuation (`accentuate`; a slider compares it with the
    photograph) and what that added. The page can be sorted, searched and printed. It is replaced
    as a whole or not at all.

    Args:
        explainer: made by `load`.
        images: files; `find_images` finds them. The page begins sorted by their names.
        path: the .html file to write; an existing one is replaced.
        targets_per_image: how many classes to explain, from the top of the ranking; of a detector,
            objects.
        steps: of the accentuation, at least 1.
        progress: called with 1, 2, …, `len(images)`, as each image is done.
        inputs: what the file's objective takes besides, the same for all images; boxes in their
            pixels.
        look: of the maps, which are as large as what the network sees.

    Returns:
        The files that could not be read, each with the reason; the page names them too.

    Raises:
        InputError: no image, too many or too few targets or steps, a graph of class activation
            maps, a look that cannot be, or a path that cannot be written.
        BackendError: a file that explains no images, or takes photographs; the runtime failed.
    """
    if not images:
        raise InputError("no image given")
    explainer.metadata.require_input("a report")
    look.check()
    if look.style == GRID or look.transparent:
        what = "a grid" if look.style == GRID else "a page"
        raise InputError(f"a report is {what} itself: its maps are opaque, and of another style")
    signature, explained = explainer.backend.signature, explainer.metadata.objective
    most = signature.classes if explained.is_class else max(explained.ranks, 1)
    if not 1 <= targets_per_image <= most:
        raise InputError(f"targets per image are from 1 to {most}, not {targets_per_image}")
    explainer.check(None, inputs=inputs)
    if steps < 1:
        raise InputError(f"steps must be at least 1, not {steps}")
    counts = Counter(file.name for file in images)
    failures = []
    facts = _facts(explainer.metadata)
    before, after = page.report_frame(explainer.metadata.source, facts, steps, explained.is_class)
    # A file name that is not text, which POSIX allows, is shown with question marks.
    with replacing(path) as beside, beside.open("w", encoding="utf-8", errors="replace") as out:
        out.write(before)
        for done, file in enumerate(images, 1):
            name = file.name if counts[file.name] == 1 else str(file)
            try:
                article = _article(explainer, file, name, targets_per_image, steps, inputs, look)
            except _UnreadableError as error:
                failures.append((file, str(error)))
                article = page.failure(name, file, error)
            out.write(article + "\n")
            if progress:
                progress(done)
        out.write(after)
    return failures


class _UnreadableError(Exception):
    """An image file that cannot be used; its message says why."""


def _facts(metadata: Metadata) -> list[str]:
    pre = metadata.preprocessing
    return [
        metadata.described_method,
        "photographs at their own sizes" if pre.any_size else f"{pre.width} × {pre.height} pixels",
        now(),
        f"onnxplain {metadata.version}",
    ]


def _article(
    explainer: Explainer,
    file: Path,
    name: str,
    targets: int,
    steps: int,
    inputs: Mapping[str, Any],
    look: PictureOptions,
) -> Markup:
    """An image's part of the page.

    Raises:
        _UnreadableError: the file is not a usable image.
    """
    signature, metadata = explainer.backend.signature, explainer.metadata
    try:
        picture = load_image(file)
        given = on_photograph(metadata, inputs, picture.size)
        seen, _ = as_batch(picture, metadata.preprocessing, signature.dtype)
    except InputError as error:
        raise _UnreadableError(str(error)) from error
    batch = seen.repeat(targets, axis=0)  # a target each, which every graph can do
    ranked = metadata.objective.is_class or metadata.objective.ranks
    asked: Any = [-1 - k for k in range(targets)] if ranked else None
    try:
        explanation = explainer(batch, asked, **given)
        if explanation.is_of_class:
            asked = explanation.targets.reshape(-1)
        ascent = accentuate(explainer, batch, asked, steps, inputs=given)
    except BackendError as error:
        raise _UnreadableError(str(size_refusal(metadata, file, picture.size, error))) from error
    rows = explanation.rows()
    row = replace(
        rows[0],
        pullbacks=np.concatenate([row.pullbacks for row in rows]),
        targets=[target for row in rows for target in row.targets],
        boxes=None if rows[0].boxes is None else np.concatenate([row.boxes for row in rows]),
    )
    path = ascent.start, ascent.end, ascent.before, ascent.after
    return page.article(name, file, row, *path, look)
