"""Write docs/fidelity.md and bench/results/fidelity.json."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from onnxplain.bench.fidelity.figures import Figures
from onnxplain.bench.fidelity.rows import ROWS, measure
from onnxplain.bench.markdown import markdown
from onnxplain.machine import machine

_HERE = Path(__file__).resolve().parent.parent

PAGE = """# Point by point with the authors

Where our methods and the code of the papers' authors differ, or did: excitation and semantic
pullbacks (arXiv 2507.22832), VITAL (2503.22399), *What do Deep Networks Like to See?*
(1803.08337). Their code is not here: a figure compares ours with their definition, written once
more in PyTorch, on networks of a few layers. The definitions are those of
`bench/fidelity/definitions.py` and `residual.py`, but for three: what B2 and B3 say of ReLU and the
pool is compared with `onnxplain.reference`, and the SegNets of D1 and D2 are our own, of random
weights, so that the order of the channels and the names in the file are what is tested. C7 counts
the networks whose layers are others.

A figure is the relative L2 of the difference: by our default; formerly, where theirs was not yet
ours; and with the option. In B3 the latter two are of five steps of 40, on an image so large that
they reach the bound. In C9 to C12 theirs is a choice that their code leaves, and ours by default
what they themselves run: to have their pictures, these need not be set.

Where an option names no command, it is `visualize`'s, and in Python a field of `Settings`; those of
relevance (C1, C5, C9, C10) are for a channel. A1's node is densenet121's.

{table}

Besides, for VITAL: references are resized to 8/7 of the input (their 256 for 224), bilinearly, a
random choice of a class's files by the seed, and none that is grey or transparent (C6). Sheets of
the best patches are `top-images --patch 64 --by mean --sheet best.png`. Their relevance does not
run on the inner neurons of DenseNet; ours does.

Adam's decay rates and clipping are options too: their setting of 20,000 steps is `--steps 20000
--betas 0.9,0.999 --no-clip`. Of the ascents: `accentuate --norm`, `--relative`, `--raw`,
`--margin`, `--away`, `--clip 3`; of what is explained: `export --objective cross-entropy` or
`energy`, `--times-image`; of pictures: `explain --style seismic`. A page with a menu of networks,
photographs and classes is `web` with several graphs and `--photographs`.

Made by `python -m onnxplain.bench.fidelity`.
"""


def table(found: Mapping[str, Figures]) -> str:
    header = ["", "what", "theirs", "ours", "off", "formerly", "option", "off with it"]
    rows = [
        [
            row.number,
            row.what,
            row.theirs,
            row.ours,
            shown(found[row.number].default),
            shown(found[row.number].before),
            row.option,
            shown(found[row.number].option),
        ]
        for row in ROWS
    ]
    return markdown(header, rows)


def shown(figure: float | None) -> str:
    return "" if figure is None else "0" if figure == 0 else f"{figure:.1g}"


def main() -> None:
    found = measure()
    figures = {number: dataclasses.asdict(each) for number, each in found.items()}
    written = json.dumps({"machine": machine(), "relative L2": figures}, indent=1) + "\n"
    (_HERE / "results" / "fidelity.json").write_text(written)
    page = PAGE.format(table=table(found))
    (_HERE.parent / "docs" / "fidelity.md").write_text(page)


if __name__ == "__main__":
    main()
