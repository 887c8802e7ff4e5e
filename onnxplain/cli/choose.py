"""The command `onnxplain choose`."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from onnxplain.asking import check_asked
from onnxplain.cli.app import command, with_flags
from onnxplain.cli.console import note, out, say, shown
from onnxplain.cli.export_options import with_export_options
from onnxplain.cli.options import Source, as_floats, as_names
from onnxplain.cli.progress import remaining_bar
from onnxplain.contract.request import ExportOptions

if TYPE_CHECKING:
    from onnxplain.evaluation.choosing import Choice

_TRIED = ("method", "estimator")
_OF_OTHER_GRAPHS = (
    *("multi_target", "live_temperature", "live", "step", "unroll", "kernels", "picture", "topk"),
    *("attentions", "preprocess", "pixels", "geometry", "quantise_output", "objective", "wrt"),
    *("settings", "concept_layer", "check"),
)


@command
@with_export_options(without=[*_TRIED, *_OF_OTHER_GRAPHS])
def choose(
    source: Source,
    images: Annotated[
        list[str], typer.Option("--images", "-i", help="An image file, folder or glob pattern.")
    ],
    *,
    path: Annotated[Path, typer.Option("--out", "-o", help="The explain graph to write.")] = Path(
        "chosen.explain.onnx"
    ),
    methods: Annotated[
        list[str] | None,
        typer.Option(
            help="With commas between, or give it again for more.",
            show_default="six of different kinds",
        ),
    ] = None,
    temperatures: Annotated[
        str | None,
        typer.Option(help="With commas between.", show_default="each method's own"),
    ] = None,
    estimators: Annotated[
        list[str] | None,
        typer.Option(
            help="With commas between, or give it again for more; besides none at all.",
            show_default="none at all",
        ),
    ] = None,
    most: Annotated[
        float | None,
        typer.Option(help="The forward passes that an explanation may cost.", show_default="any"),
    ] = None,
    most_images: Annotated[
        int, typer.Option("--count", min=2, help="Images, drawn by a seed.")
    ] = 10,
    options: ExportOptions,
) -> None:
    """Try explanations of a classifier on your own images, and write the one to take.

    Each is measured by its cost, faithfulness (does the logit fall where it says so?), localisation
    (in a mosaic, does it lie on the right images?) and stability (does it stay when pixels move a
    little?). The table has the Pareto front: what nothing else is as good as, and better somewhere.
    Of it, the one whose rank by the three qualities is best on average is written. `onnxplain tune`
    finds one method's temperature more finely.

    \b
        onnxplain choose efficientnet-lite0 -i photos/
        onnxplain choose resnet50 -i photos/ --most 3 --temperatures 0.2,0.3,0.5
        onnxplain choose classifier.onnx -i photos/ --estimators smoothgrad,integrated-gradients
    """
    tried = as_names(methods) or []
    asked = [None, *(as_names(estimators) or [])]
    numbers = as_floats(temperatures, "--temperatures") or (None,)
    for method, estimator in product(tried or [options.method], asked):
        named = replace(options, method=method, estimator=estimator, parameters=None)
        check_asked(source, path, named)  # parameters may be of some candidates alone
    from onnxplain.runtime import find_images

    found = find_images(images)
    from onnxplain.evaluation.choosing import TRIED, plot
    from onnxplain.evaluation.choosing import choose as measure

    given = {n: value for n, value in vars(options).items() if n not in (*_TRIED, "temperature")}
    with remaining_bar() as progress:
        task = progress.add_task("choosing", total=None)
        choice = measure(
            source,
            found,
            path,
            methods=tried or TRIED,
            temperatures=numbers,
            estimators=asked,
            most=most,
            options=given,
            count=most_images,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    for name, why in choice.refused.items():
        note(f"{name}: {with_flags(why)}")
    out.print(_table(choice))
    drawn = path.with_suffix(".png")
    plot(choice, drawn, Path(source).name)
    say(f"{path}  {choice.chosen.candidate.name}; {drawn}")


def _table(choice: Choice) -> Table:
    """The front, the chosen one bold; then the others."""
    table = Table("", "cost", *choice.chosen.qualities, "")
    best = choice.front
    others = [one for one in choice.measured if one not in best]
    for one in (*best, *sorted(others, key=lambda one: one.cost)):
        table.add_row(
            shown(one.candidate.name),
            f"{one.cost:.2f}",
            *("–" if value != value else f"{value:.3f}" for value in one.qualities.values()),
            "front" if one in best else "",
            style="bold green" if one is choice.chosen else None,
        )
    return table
