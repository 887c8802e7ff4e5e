"""A visualisation as files: pictures, a contact sheet, an animation, and the numbers."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.files import replacing
from onnxplain.runtime.inputs.images import load_image
from onnxplain.runtime.pictures.figures import write_animation, write_image
from onnxplain.runtime.pictures.render import Cell, grid, mosaic
from onnxplain.vital.result import Visualisation

SHEET, ANIMATION, FIGURES = "contact-sheet.png", "animation.webp", "visualisation.json"

_IN_A_ROW = 4
_MILLISECONDS = 80  # of a frame


def write(seen: Visualisation, folder: Path) -> list[Path]:
    """Write everything into an existing folder.

    First `visualisation.json`: settings, probabilities and losses. Then, for each neuron,
    `<number>-<name>.png` and `<number>-<name>.transparent.png`; the contact sheet; the animation.

    Returns:
        The opaque pictures' paths.

    Raises:
        InputError: a file cannot be written.
    """
    with replacing(folder / FIGURES) as beside:
        beside.write_text(json.dumps(figures(seen), indent=1) + "\n")
    paths = []
    for i, (number, name) in enumerate(zip(seen.neurons, seen.names, strict=True)):
        stem = f"{number}-{slug(name)}"
        paths.append(folder / f"{stem}.png")
        write_image(seen.image(i), paths[-1])
        write_image(seen.image(i, transparent=True), folder / f"{stem}.transparent.png")
    write_image(contact_sheet(seen), folder / SHEET)
    write_animation([_frame(frame) for frame in seen.frames], folder / ANIMATION, _MILLISECONDS)
    return paths


def _frame(pictures: NDArray[np.uint8]) -> Image.Image:
    """A frame of the animation: the neurons in rows."""
    own = [Image.fromarray(picture) for picture in pictures]
    rows = [own[first : first + _IN_A_ROW] for first in range(0, len(own), _IN_A_ROW)]
    return mosaic(rows)


def contact_sheet(seen: Visualisation) -> Image.Image:
    """Each neuron's picture and, below it, the same with its transparent parts white."""
    rows = []
    for first in range(0, len(seen), _IN_A_ROW):
        some = range(first, min(first + _IN_A_ROW, len(seen)))
        captions = [_caption(seen, i) for i in some]
        pictures = [Cell(seen.image(i), text) for i, text in zip(some, captions, strict=True)]
        faded = [Cell(load_image(seen.image(i, transparent=True))) for i in some]
        empty = Cell(Image.new("RGB", pictures[0].picture.size, "white"))
        missing = [empty] * (min(_IN_A_ROW, len(seen)) - len(some))
        rows += [[*pictures, *missing], [*faded, *missing]]
    return grid(rows)


def figures(seen: Visualisation) -> dict[str, object]:
    """What `visualisation.json` holds."""
    return {
        "layer": seen.layer,
        "neurons": [
            {
                "index": index,
                "name": name,
                "probability": _number(probability),
                "references' probability": _number(reference),
                "loss": [round(float(loss), 6) for loss in losses],
            }
            for index, name, probability, reference, losses in zip(
                seen.neurons,
                seen.names,
                seen.probabilities,
                seen.references if len(seen.references) else [np.nan] * len(seen),
                seen.losses.T,
                strict=True,
            )
        ],
        "provider": seen.provider,
        "matched layers": list(seen.layers),
        "settings": {
            name: value
            for name, value in dataclasses.asdict(seen.settings).items()
            if value is not None
        },
    }


def slug(name: str) -> str:
    """A name as part of a file name: letters and digits, joined by dashes."""
    return re.sub(r"[^0-9a-z]+", "-", name.lower()).strip("-")


def _caption(seen: Visualisation, index: int) -> str:
    probability = seen.probabilities[index]
    shown = "" if np.isnan(probability) else f"\n{probability:.1%}"
    return seen.names[index] + shown


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
