"""One photograph by every method and estimator, side by side: `docs/gallery.md` and its picture.

    python -m onnxplain.bench.gallery [docs]

The network is EfficientNet-Lite0, the one whose trained weights come as a package; what explains
other networks alone is named on the page, with the reason. A minute or two.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from PIL import Image

from onnxplain.bench.markdown import markdown
from onnxplain.bench.networks import PHOTOGRAPHS, photographs
from onnxplain.bench.progress import progress_bar
from onnxplain.contract.estimator import BASELINES
from onnxplain.contract.explain import DIRECTION
from onnxplain.errors import SourceError
from onnxplain.export.catalogue import catalogue
from onnxplain.export.pipeline import export
from onnxplain.export.sources.source import from_module, torch_network
from onnxplain.files import scratch
from onnxplain.runtime import load
from onnxplain.runtime.pictures.figures import write_image
from onnxplain.runtime.pictures.kinds import READINGS, drawn
from onnxplain.runtime.pictures.render import (
    Cell,
    grid,
)

NETWORK, NAME = "efficientnet-lite0", "coffee"
PHOTOGRAPH = PHOTOGRAPHS.index(NAME)
CELL, COLUMNS, LINE = 200, 6, 30
Pixels: TypeAlias = NDArray[np.uint8]
WEBP = "gallery.webp"

PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "excitation": {"parameters": {"temperature": 1.0}},
    "layercam": {"layer": "_blocks.10"},
    "scorecam": {"parameters": {"chunk": 16}},
    "ablationcam": {"parameters": {"chunk": 16}},
}
"""What is not left as it is by default."""


@dataclass(frozen=True)
class Shown:
    """A method, or an estimator over the gradient.

    Attributes:
        options: of its export, and `set` those that are not as they are by default.
    """

    name: str
    good_for: str
    options: Mapping[str, Any]

    @property
    def set(self) -> Mapping[str, Any]:
        flat = {**self.options, **self.options.get("parameters", {})}
        return {k: v for k, v in flat.items() if k not in ("method", "estimator", "parameters")}


def shown() -> Iterator[Shown]:
    """All that the catalogue has, methods first."""
    for entry in catalogue():
        if entry.kind == "method":
            options = {"method": entry.name, **PARAMETERS.get(entry.name, {})}
        elif entry.kind == "estimator":
            options = {"method": "gradient", "estimator": entry.name}
        else:
            continue
        yield Shown(entry.name, entry.good_for, options)


@dataclass(frozen=True)
class Explained:
    """What is shown, of the photograph; and of what kind it is.

    Attributes:
        blind: whether it is the same for another photograph.
    """

    shown: Shown
    kind: str
    photograph: Pixels
    pullback: NDArray[Any]
    target: str
    blind: bool


def main(folder: str = "docs") -> None:
    pictures = photographs()
    pictures.insert(0, pictures.pop(PHOTOGRAPH))
    everything, found, refused = [*shown()], list[Explained](), list[tuple[str, str]]()
    network = torch_network(NETWORK, "DEFAULT")
    pre = network.preprocessing
    example = torch.zeros(2, pre.channels, pre.height, pre.width)
    noted = {"mean": pre.mean, "std": pre.std, "labels": network.labels}
    with progress_bar() as progress, scratch() as place:
        ir.save(from_module(network.module, example).model, place / "forward.onnx")
        task = progress.add_task("", total=len(everything))
        for one in everything:
            progress.update(task, description=one.name)
            try:
                found.append(explained(place, one, noted, pictures))
            except SourceError as error:
                refused.append((one.name, str(error)))
            progress.advance(task)
    write_image(figure(found), Path(folder) / WEBP)
    (Path(folder) / "gallery.md").write_text(page(found, refused))


def explained(
    place: Path, one: Shown, noted: Mapping[str, Any], pictures: Sequence[Any]
) -> Explained:
    """The first of the pictures, by what is predicted; others are baselines where some are needed.

    Args:
        place: the folder of `forward.onnx`, the network.
        noted: what else the file says of it.

    Raises:
        SourceError: the network is not one that it explains.
    """
    path = place / "x.onnx"
    export(place / "forward.onnx", path, check=False, **noted, **one.options)
    explainer = load(path, "cpu")
    others = BASELINES in explainer.metadata.estimator.inputs
    given: dict[str, Any] = {BASELINES: pictures[1:]} if others else {}
    found = explainer(pictures[:1], **given)
    name = found.class_names[found.targets[0]]
    kind = explainer.metadata.kind
    blind = False
    if kind == DIRECTION:
        other = explainer(pictures[1:2], found.targets[:1], **given)
        blind = np.array_equal(other.pullback, found.pullback)
    return Explained(one, kind, found.photographs[0], found.pullback[0], name, blind)


def figure(found: Sequence[Explained]) -> Image.Image:
    """The photograph first, then each explanation, in rows."""
    cells = [Cell(_small(Image.fromarray(found[0].photograph)), found[0].target)]
    for one in found:
        reading, _ = READINGS[one.kind]
        if one.blind:
            reading = "the same for any image"
        text = [one.shown.name, *textwrap.wrap(one.shown.good_for, LINE), reading]
        cells.append(Cell(_small(drawn(one.kind, one.photograph, one.pullback)), "\n".join(text)))
    cells += [Cell(Image.new("RGB", (CELL, CELL), "white"))] * (-len(cells) % COLUMNS)
    return grid([cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)])


def _small(picture: Image.Image) -> Image.Image:
    return picture.resize((CELL, CELL), Image.Resampling.LANCZOS)


def page(found: Sequence[Explained], refused: Sequence[tuple[str, str]]) -> str:
    """How each is read, and what is not shown."""
    kinds = [
        [
            ", ".join(f"`{one.shown.name}`" for one in found if one.kind == kind),
            READINGS[kind][1],
        ]
        for kind in READINGS
        if any(one.kind == kind for one in found)
    ]
    others = [
        [f"`{one.shown.name}`", f"`{', '.join(f'{k} {v}' for k, v in one.shown.set.items())}`"]
        for one in found
        if one.shown.set
    ]
    return "\n".join(
        [
            "# One photograph by every method",
            "",
            f"The photograph is scikit-image's `{NAME}`, the network EfficientNet-Lite0 with its "
            "trained weights, and what is explained the class that it predicts, "
            f"{found[0].target}. Estimators are over `gradient`; `expected-gradients` has two "
            "other photographs as baselines. Made by `python -m onnxplain.bench.gallery`.",
            "",
            f"![The photograph, and {len(found)} explanations of it, each with its name, what it "
            f"is good for, and how it is read]({WEBP})",
            "",
            "## How they are read",
            "",
            markdown(["", "how it is read"], kinds),
            "",
            "Each picture is scaled by itself: strengths are not to be compared.",
            "",
            *(
                f"`{one.shown.name}` gives of this network the same for any photograph, to the "
                "bit: what passes depends on the gradients alone, and there is no max pool, whose "
                "choices are a photograph's own.\n"
                for one in found
                if one.blind
            ),
            "All by default, but for:",
            "",
            markdown(["", "set to"], others),
            "",
            "## Not shown",
            "",
            "Refused for this network, each in a sentence. No package brings a trained transformer "
            "classifier, and of an untrained one the pictures would be noise:",
            "",
            *(f"- `{name}`: {reason}" for name, reason in refused),
            "",
        ]
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
