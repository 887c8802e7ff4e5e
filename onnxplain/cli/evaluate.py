"""The command `onnxplain evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from onnxplain.cli.app import command
from onnxplain.cli.console import complain, note, out, say, shown
from onnxplain.cli.drift import report_drift
from onnxplain.cli.options import Precision, Provider, as_names
from onnxplain.cli.progress import remaining_bar
from onnxplain.errors import InputError

if TYPE_CHECKING:
    from onnxplain.evaluation import Evaluation


@command
def evaluate(
    models: Annotated[
        list[Path], typer.Argument(help="Explain graphs of one classifier: methods, temperatures.")
    ],
    images: Annotated[
        list[str], typer.Option("--images", "-i", help="An image file, folder or glob pattern.")
    ],
    folder: Annotated[
        Path, typer.Option("--out", "-o", help="The folder to begin, or to resume.")
    ] = Path("evaluation"),
    labels: Annotated[
        Path | None,
        typer.Option(
            help="A CSV file: an image's path and its class a line.",
            show_default="the classes that the first graph predicts",
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="A folder of masks, called as the images, light where the thing is."),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics",
            "-m",
            help="Separated by commas, or give it again for more.",
            show_default="the protocol's",
        ),
    ] = None,
    protocol: Annotated[str, typer.Option(help="A set of metrics.")] = "semantic-pullbacks",
    most: Annotated[
        int | None,
        typer.Option(
            "--count",
            min=1,
            help="Images, drawn by the seed.",
            show_default="the protocol's: 1000",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Ten images, without the metric that takes most of the time."),
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of all draws.", show_default="the protocol's: 314")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Instead: does MODELS, one, still explain as this file does? An earlier version, "
            "or the same in float32."
        ),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            help="With --against: a measure's least, ssim=0.9, or drifted=0.05, the share of the "
            "images that may fall below. Give it again for more.",
            show_default=False,
        ),
    ] = None,
    provider: Provider = "auto",
    precision: Precision = "float32",
) -> None:
    """Measure which explanation to trust: the same images, several graphs, several metrics.

    \b
        onnxplain evaluate gradient.onnx excitation.onnx -i photos/ --quick
        onnxplain evaluate *.explain.onnx -i photos/ --labels classes.csv -o evaluation
        onnxplain evaluate a.onnx b.onnx -i photos/ -m infidelity,max-sensitivity
        onnxplain evaluate new.onnx --against old.onnx -i photos/   # fails if they drifted apart

    The protocol is that of the semantic pullbacks' paper: infidelity, faithfulness-correlation,
    faithfulness-estimate, monotonicity-correlation, max-sensitivity, random-logit and focus, each a
    class of Quantus. Further metrics are deletion and insertion, mprt, smooth-mprt and
    efficient-mprt, and with --masks pointing-game and relevance-mass. An arrow says which way is
    better. The interval holds 95 % of the means of resampled images. The best is bold, and so is
    what these images do not tell from it.

    With --against, both files explain the class that the other one predicts (or the labels), and
    each image is held to thresholds of likeness; the exit status is 1 where more than a tenth of
    the images fall below one.

    If it was killed or interrupted, give the same command again: it goes on where it was. An image
    that cannot be read is a row with its reason, and the exit status is 1.
    """
    if against is not None:
        of_metrics = {
            "--masks": masks,
            "--metrics": metrics or None,
            "--count": most,
            "--seed": seed,
        }
        for option, value in {**of_metrics, "--quick": quick or None}.items():
            if value is not None:
                raise InputError(
                    f"{option} is of metrics, and --against of likeness: leave one out"
                )
        report_drift(models, against, images, labels, threshold or [], folder, provider, precision)
        return
    if threshold:
        raise InputError("--threshold is of a comparison: say with --against what to compare with")
    from onnxplain.evaluation import evaluate as measure
    from onnxplain.evaluation.labels import read_labels
    from onnxplain.evaluation.store import PAGE

    with remaining_bar() as progress:
        task = progress.add_task("evaluating", total=None)
        evaluation = measure(
            models,
            images,
            labels=None if labels is None else read_labels(labels),
            masks=masks,
            metrics=as_names(metrics),
            protocol=protocol,
            out=folder,
            count=most,
            quick=quick,
            seed=seed,
            provider=provider,
            precision=precision,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    out.print(_table(evaluation))
    if evaluation.earlier:
        note(f"{evaluation.earlier} of {len(evaluation.scores)} scores are of an earlier run")
    if any(evaluation.uneven(metric.name) for metric in evaluation.metrics):
        note(
            "n: the images that have a score; where it differs, the best is of those of all graphs"
        )
    for line in evaluation.problems_said():
        complain(line)
    say(f"{folder / PAGE}  {len(evaluation.images)} images")
    if evaluation.problems:
        raise typer.Exit(1)


def _table(evaluation: Evaluation) -> Table:
    """A row for each metric, a column for each graph."""
    table = Table("metric", *(shown(graph) for graph in evaluation.graphs))
    for metric in evaluation.metrics:
        best = evaluation.best(metric.name)
        cells = []
        of_graphs = zip(
            evaluation.estimates(metric.name), evaluation.tied(metric.name), strict=True
        )
        for i, (mean, tied) in enumerate(of_graphs):
            text = (
                f"{mean.mean:.3g} [dim]{mean.low:.3g} … {mean.high:.3g}[/]" if mean.count else "–"
            )
            text += f" n = {mean.count}" if evaluation.uneven(metric.name) else ""
            cells.append(f"[bold]{text}[/]" if i == best or tied else text)
        table.add_row(f"{metric.name} {metric.arrow}", *cells)
    return table
