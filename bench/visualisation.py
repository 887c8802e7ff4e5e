"""Visualisations of classes compared: `python -m onnxplain.bench.visualisation OUT.json --help`.

Writes what networks make of each method's pictures (`onnxplain.vital.metrics.score`) as JSON, of
which the table in docs/neurons.md is made.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from onnxplain.bench.readme import visualisation_table
from onnxplain.errors import InputError
from onnxplain.files import replacing
from onnxplain.machine import machine
from onnxplain.runtime.inputs.images import find_images
from onnxplain.runtime.pictures.figures import write_image
from onnxplain.runtime.pictures.render import Cell, grid
from onnxplain.vital.metrics import read_judge, score


def measure(
    folders: Mapping[str, Path], networks: Sequence[str], references: Path, provider: str = "cpu"
) -> dict[str, Any]:
    """What is written: "machine", "references" (how many), and "rows", ready for JSON.

    A row has "method" and a `Score`.

    Args:
        folders: method → its folder of pictures, `<class index>….png`.
        networks: names, first the one that the pictures are of.
        references: a folder of photographs.

    Raises:
        InputError: a folder without pictures; one whose name begins with no class.
    """
    judges = [read_judge(name, provider=provider) for name in networks]
    photographs = find_images(references)
    rows = []
    for method, folder in folders.items():
        pictures = [path for path in find_images(folder) if _is_picture(path)]
        if not pictures:
            raise InputError(f"'{folder}' has no picture whose name begins with a class's index")
        found = score(pictures, [_class_of(path) for path in pictures], judges, photographs)
        rows += [{"method": method, **dataclasses.asdict(row)} for row in found]
    return {"machine": machine(), "references": len(photographs), "rows": rows}


def side_by_side(folders: Mapping[str, Path]) -> Image.Image:
    """A row for each method, a column for each class."""
    rows = []
    for folder in folders.values():
        paths = sorted(filter(_is_picture, find_images(folder)), key=_class_of)
        names = [path.stem.partition("-")[2].replace("-", " ") for path in paths]
        rows.append([Cell(Image.open(p), name) for p, name in zip(paths, names, strict=True)])
    return grid(rows, row_titles=[name.replace(" ", "\n") for name in folders])


def _is_picture(path: Path) -> bool:
    """Of what `onnxplain visualize` writes, the opaque pictures."""
    return path.name[:1].isdigit() and not path.stem.endswith(".transparent")


def _class_of(path: Path) -> int:
    return int(re.findall(r"\d+", path.name)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the JSON file")
    parser.add_argument(
        "--method", action="append", required=True, metavar="NAME=FOLDER", help="once for each"
    )
    parser.add_argument("--network", action="append", required=True, metavar="NAME")
    parser.add_argument("--references", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--sheet", type=Path, help="a picture of all of them, to write too")
    given = parser.parse_args()
    pairs = [text.partition("=") for text in given.method]
    folders = {name: Path(folder) for name, _, folder in pairs}
    measured = measure(folders, given.network, given.references)
    with replacing(given.out) as beside:
        beside.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n")
    print(visualisation_table(measured))
    if given.sheet is not None:
        write_image(side_by_side(folders), given.sheet)


if __name__ == "__main__":
    main()
