"""One explanation in every style: the picture and the table of options of `docs/pictures.md`.

    python -m onnxplain.bench.pictures [docs]

The network is EfficientNet-Lite0 with its trained weights; the last picture is the graph's own, of
the photograph's bytes. Half a minute.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from onnxplain.bench.markdown import markdown
from onnxplain.bench.networks import PHOTOGRAPHS, photographs
from onnxplain.contract.picture import GRID, STYLES, PictureOptions
from onnxplain.export.pipeline import export
from onnxplain.files import scratch
from onnxplain.options import declared
from onnxplain.runtime import load
from onnxplain.runtime.pictures.figures import write_image
from onnxplain.runtime.pictures.render import Cell, grid

NETWORK, NAME, TEMPERATURE = "efficientnet-lite0", "chelsea", 0.7
WEBP, PAGE = "pictures.webp", "pictures.md"
LOOKS: dict[str, PictureOptions] = {
    **{style: PictureOptions(style=style) for style in STYLES if style != GRID},
    "overlay, signed": PictureOptions(style="overlay", signed=True),
    "heatmap, cividis, no smoothing": PictureOptions(
        style="heatmap", colours="cividis", smoothing=0
    ),
}
DRAWN = "overlay,signed=true"


def options_table() -> str:
    """The declared options, as Markdown."""
    usual = PictureOptions()
    rows = []
    for name, one in declared(PictureOptions).items():
        value = one.unset or getattr(usual, name)
        limits = [f"from {one.least:g}"] if one.least is not None else []
        limits += [f"to {one.most:g}"] if one.most is not None else []
        said = f"{one.help} {' '.join(limits).capitalize()}." if limits else one.help
        rows.append([f"`{name}`", f"`{value}`" if one.unset is None else value, said])
    return markdown(["option", "default", "what it says"], rows)


def picture() -> Image.Image:
    """The photograph explained in every style, and as the graph draws it."""
    image = photographs()[PHOTOGRAPHS.index(NAME)]
    with scratch() as folder:
        path, camera = folder / "plain.onnx", folder / "camera.onnx"
        export(NETWORK, path, temperature=TEMPERATURE)
        export(NETWORK, camera, temperature=TEMPERATURE, preprocess=True, picture=DRAWN)
        (row,) = load(path, "cpu")(image).rows()
        session = onnxruntime.InferenceSession(camera, providers=["CPUExecutionProvider"])
        feeds = {"image": np.asarray(image)[None], "target": np.array([-1])}
        (drawn,) = session.run(["picture"], feeds)
    canvas = row.canvas(PictureOptions())
    cells = [Cell(row.shown(canvas), "the photograph")]
    for name, look in LOOKS.items():
        cells.append(Cell(row.drawn(0, look, canvas)[0], name))
    cells.append(Cell(Image.fromarray(drawn[0]), f"by the graph: --picture {DRAWN}"))
    return grid([cells[i : i + 3] for i in range(0, len(cells), 3)])


def main(docs: str = "docs") -> None:
    """Write both into a folder."""
    write_image(picture(), Path(docs) / WEBP)
    page = Path(docs) / PAGE
    table = f"<!-- options -->\n{options_table()}\n<!-- /options -->"
    text = page.read_text()
    page.write_text(
        re.sub("<!-- options -->.*<!-- /options -->", lambda _: table, text, flags=re.S)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
