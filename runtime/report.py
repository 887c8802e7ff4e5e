"""Many explanations as one web page that needs nothing but itself."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract.explain import Metadata
from onnxplain.errors import InputError
from onnxplain.files import replacing
from onnxplain.runtime.ascent import accentuate
from onnxplain.runtime.explainer import Explainer
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.runtime.pictures.markup import Markup, data_uri, fill, join
from onnxplain.runtime.pictures.render import overlay, signed_image

_PAGE = Path(__file__).with_name("report.html")
_PREDICTIONS = 5

_MEANING = Template(
    "The <b>pullback</b> is the change of the photograph’s pixels that the network would read as "
    "more of the class (grey: none), the <b>heatmap</b> shows where that change is strong, the "
    "<b>accentuation</b> is the photograph after $steps along it, and the <b>difference</b> is "
    "what they added; beside the class stands its probability before and after."
)
_IMAGE = Template("""\
<article data-name="$name" data-class="$predicted" data-confidence="$confidence" data-gain="$gain">
<div class="seen">
<h2 title="$path" data-find>$name</h2>
$photograph
<ol>
$predictions
</ol>
</div>
<div class="why">
$targets
</div>
</article>""")
_FAILURE = Template("""\
<article class="failed" data-name="$name">
<h2 title="$path" data-find>$name</h2>
<p>$reason</p>
</article>""")
_PREDICTION = Template("""\
<li><svg aria-hidden="true"><rect width="$probability" height="100%"/></svg>\
<span data-find>$name</span><span>$probability</span></li>""")
_TARGET = Template("""\
<section>
<h3><b data-find>$target</b><span>$before → <b>$after</b></span></h3>
<div class="pictures">
<figure>$pullback<figcaption><b>Pullback</b>the change towards it</figcaption></figure>
<figure>$heatmap<figcaption><b>Heatmap</b>where it is strong</figcaption></figure>
<figure>
<div class="slider">
$start
$end
<span>before</span><span>after</span>
<input type="range" value="50" autocomplete="off" aria-label="Before and after, $name, $target">
</div>
<figcaption><b>Accentuation</b>slide to compare</figcaption>
</figure>
<figure>$difference<figcaption><b>Difference</b>what was added</figcaption></figure>
</div>
</section>""")
_PICTURE = Template('<img src="$uri" alt="$what" width="$width" height="$height" decoding="async">')


def write_report(
    explainer: Explainer,
    images: Sequence[Path],
    path: Path,
    *,
    targets_per_image: int = 1,
    steps: int = 5,
    progress: Callable[[int], None] | None = None,
) -> list[tuple[Path, str]]:
    """Explain image files on one HTML page, which opens from disk and asks the network for nothing.

    Of each image it shows the photograph as the network saw it, the five likeliest classes, and for
    each target pullback, heatmap, accentuation (`accentuate`; a slider compares it with the
    photograph) and what that added. The page can be sorted, searched and printed. It is replaced
    as a whole or not at all.

    Args:
        explainer: made by `load`.
        images: files; `find_images` finds them. The page begins sorted by their names.
        path: the .html file to write; an existing one is replaced.
        targets_per_image: explain so many classes, from the top of the ranking.
        steps: of the accentuation, at least 1.
        progress: called with 1, 2, … `len(images)` as each image is done.

    Returns:
        The files that could not be read, each with the reason; the page names them too.

    Raises:
        InputError: no image, too many or too few targets or steps, a graph of class activation
            maps, or a path that cannot be written.
        BackendError: the runtime failed.
    """
    if not images:
        raise InputError("no image given")
    classes = explainer.backend.signature.classes
    if not 1 <= targets_per_image <= classes:
        raise InputError(f"targets per image are from 1 to {classes}, not {targets_per_image}")
    if steps < 1:
        raise InputError(f"steps must be at least 1, not {steps}")
    counts = Counter(file.name for file in images)
    failures = []
    before, after = _page(explainer.metadata, steps)
    # A file name that is not text, which POSIX allows, is shown with question marks.
    with replacing(path) as beside, beside.open("w", encoding="utf-8", errors="replace") as page:
        page.write(before)
        for done, file in enumerate(images, 1):
            name = file.name if counts[file.name] == 1 else str(file)
            try:
                article = _image(explainer, file, name, targets_per_image, steps)
            except _UnreadableError as error:
                failures.append((file, str(error)))
                article = fill(_FAILURE, name=name, path=file, reason=error)
            page.write(article + "\n")
            if progress:
                progress(done)
        page.write(after)
    return failures


class _UnreadableError(Exception):
    """An image file that cannot be used; its message says why."""


def _page(metadata: Metadata, steps: int) -> tuple[str, str]:
    """What comes before the images, and what after."""
    pre, now = metadata.preprocessing, datetime.now()
    facts = [
        metadata.described_method,
        f"{pre.width} × {pre.height} pixels",
        f"{now.day} {now:%B %Y, %H:%M}",
        f"onnxplain {metadata.version}",
    ]
    page = fill(
        Template(_PAGE.read_text(encoding="utf-8")),
        nonce=secrets.token_urlsafe(16),
        source=metadata.source,
        facts=" · ".join(facts),
        meaning=fill(_MEANING, steps="one step" if steps == 1 else f"{steps} steps"),
        images=Markup("\0"),
    )
    before, _, after = page.partition("\0\n")
    return before, after


def _image(explainer: Explainer, file: Path, name: str, targets: int, steps: int) -> Markup:
    """An image's part of the page.

    Raises:
        _UnreadableError: the file is not a usable image.
    """
    signature = explainer.backend.signature
    try:
        batch, _ = as_batch(file, explainer.metadata.preprocessing, signature.dtype)
    except InputError as error:
        raise _UnreadableError(str(error)) from error
    batch = batch.repeat(targets, axis=0)  # a target each, which every graph can do
    explanation = explainer(batch, [-1 - k for k in range(targets)])
    ascent = accentuate(explainer, batch, explanation.targets.reshape(-1), steps)
    photograph = explanation.photographs[0]
    pullbacks = explanation.pullback.reshape(ascent.start.shape)
    heatmaps = explanation.heatmap().reshape(targets, *photograph.shape[:2])
    ranked = explanation.labels(_PREDICTIONS)[0]
    sections = []
    for k, target in enumerate(np.ravel(explanation.names)):
        what = f"of {name} for {target}"
        sections.append(
            fill(
                _TARGET,
                name=name,
                target=target,
                before=f"{ascent.before[k]:.1%}",
                after=f"{ascent.after[k]:.1%}",
                pullback=_picture(signed_image(pullbacks[k]), f"pullback {what}"),
                heatmap=_picture(overlay(photograph, heatmaps[k]), f"heatmap {what}"),
                start=_picture(_pixels(ascent.start[k]), f"photograph {name}"),
                end=_picture(_pixels(ascent.end[k]), f"accentuation {what}"),
                difference=_picture(signed_image(ascent.difference[k]), f"difference {what}"),
            )
        )
    return fill(
        _IMAGE,
        name=name,
        path=file,
        predicted=ranked[0][0],
        confidence=f"{ranked[0][1]:.6f}",
        gain=f"{ascent.after[0] - ascent.before[0]:.6f}",
        photograph=_picture(Image.fromarray(photograph), f"photograph {name}"),
        predictions=join(
            [fill(_PREDICTION, name=label, probability=f"{p:.1%}") for label, p in ranked]
        ),
        targets=join(sections),
    )


def _picture(picture: Image.Image, what: str) -> Markup:
    width, height = picture.size
    return fill(_PICTURE, uri=data_uri(picture), what=what, width=width, height=height)


def _pixels(x: NDArray[Any]) -> Image.Image:
    """Pixels [C,H,W] in [-1, 1], C = 1 or 3, as a picture."""
    pixels = np.rint(127.5 + 127.5 * x).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
