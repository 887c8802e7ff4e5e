"""The commands `onnxplain signal train`, `export`, `show` and `study`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from onnxplain.cli.app import app, guarded
from onnxplain.cli.console import complain, file_size, out, say
from onnxplain.cli.declared import with_options
from onnxplain.cli.options import Images, Provider, Weights
from onnxplain.cli.progress import progress_bar
from onnxplain.signal.settings import Settings

if TYPE_CHECKING:
    from onnxplain.signal.results import Results

signal_app = typer.Typer(
    name="signal",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""See what a network lets in.

An autoencoder is tuned on the gradients of a frozen classifier: what its reconstruction keeps is
what the classifier uses (Palacio et al., arXiv 1803.08337).

\b
    onnxplain signal train photos/ --classifier resnet50 -o runs/resnet50
    onnxplain signal show runs/resnet50/signal.onnx cat.jpg
    onnxplain signal study digits -c plain -c residual -c dense""",
)
app.add_typer(signal_app)

GRAPH = "signal.onnx"


def _command(function: Callable[..., None]) -> Callable[..., None]:
    run = guarded(function)
    signal_app.command(no_args_is_help=True)(run)
    return run


@_command
@with_options("settings", Settings)
def train(
    *,
    settings: Settings,
    folder: Annotated[Path, typer.Option("--out", "-o", help="The folder to write to.")],
    resume: Annotated[bool, typer.Option("--resume", help="Continue where it stopped.")] = False,
) -> None:
    """Train an autoencoder, and tune it on a classifier.

    Stage 1 trains all of it on reconstruction; stage 2 freezes the encoder and the classifier and
    tunes the decoder on the classifier's cross-entropy. Writes checkpoints, samples, TensorBoard's
    logs, and signal.onnx, which `onnxplain signal show` takes. Ctrl-C stops after a checkpoint.

    \b
        onnxplain signal train photos/ -c resnet50 -o runs/resnet50
        onnxplain signal train photos/ -c resnet50 -o runs/resnet50 --resume
        onnxplain signal train photos/ -c vgg16 --start authors.pth --epochs 0 -o runs/vgg16
        torchrun --nproc-per-node 4 -m onnxplain.cli signal train photos/ -c vgg16 -o runs/vgg16
    """
    from onnxplain.signal import training

    with progress_bar() as progress:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int, loss: float) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage)
            what = f"{stage}, loss {loss:.4f}"
            progress.update(tasks[stage], description=what, completed=done, total=total)

        done = training.train(settings, folder, resume=resume, progress=tell)
    if done.first:
        _finish_training(folder, settings.classifier, settings.weights, done)
    if done.first and done.skipped:  # torchrun ends all processes when one fails
        raise typer.Exit(1)


def _finish_training(folder: Path, classifier: str | None, weights: str, done: Any) -> None:
    """Export what was trained, and say what came of it."""
    from onnxplain.signal.classifiers import open_classifier
    from onnxplain.signal.export import export_autoencoder

    network = open_classifier(classifier, done.data, weights) if classifier else None
    export_autoencoder(done.autoencoder, folder / GRAPH, network, done.data.classes)
    _say_skipped(done.skipped)
    say(f"{folder / GRAPH}  {file_size(folder / GRAPH)}")


@_command
def export(
    weights_file: Annotated[
        Path, typer.Argument(help="A training's autoencoder.pt, or the authors' SegNet.")
    ],
    path: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path(GRAPH),
    size: Annotated[
        int | None,
        typer.Option(min=1, help="The pictures' width and height.", show_default="as trained"),
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option("--classifier", "-c", help="A classifier to put after it, by name."),
    ] = None,
    weights: Weights = "DEFAULT",
    channels: Annotated[
        str, typer.Option(help="What the authors' network takes: rgb, as they publish it, or bgr.")
    ] = "rgb",
) -> None:
    """Write an autoencoder as ONNX, alone or followed by a classifier.

    It uses only standard operators, also for unpooling, which ONNX Runtime, OpenVINO and TensorRT
    all run.

    \b
        onnxplain signal export runs/resnet50/autoencoder.pt -o resnet50.signal.onnx
        onnxplain signal export authors.pth --classifier resnet50
    """
    from onnxplain.export.sources.source import torch_network
    from onnxplain.signal.classifiers import OnPixels, frozen
    from onnxplain.signal.export import export_autoencoder
    from onnxplain.signal.weights import load_autoencoder, start_from

    autoencoder = load_autoencoder(weights_file, channels)
    if size is not None:
        autoencoder = start_from(weights_file, size, autoencoder.design.channels, channels)
    network, labels = None, tuple[str, ...]()
    if classifier:
        side = autoencoder.design.size
        found = torch_network(classifier, weights, (side, side))
        pre = found.preprocessing
        network, labels = frozen(OnPixels(found.module, pre.mean, pre.std)), found.labels
    export_autoencoder(autoencoder, path, network, labels)
    say(f"{path}  {file_size(path)}")


@_command
def show(
    model: Annotated[
        Path, typer.Argument(help="A graph made by `signal train` or `signal export`.")
    ],
    images: Images,
    path: Annotated[Path, typer.Option("--out", "-o", help="The picture to write.")] = Path(
        "signal.png"
    ),
    provider: Provider = "auto",
) -> None:
    """Show what a network sees in pictures: original, reconstruction and difference.

    A picture that cannot be read is reported, and the exit status is 1.

    \b
        onnxplain signal show runs/resnet50/signal.onnx cat.jpg
        onnxplain signal show resnet50.signal.onnx photos/ -o seen.webp --provider openvino
    """
    from onnxplain.errors import InputError
    from onnxplain.runtime import find_images
    from onnxplain.runtime.inputs.batches import ImageLike
    from onnxplain.runtime.pictures.figures import write_image
    from onnxplain.signal.compiled import open_graph
    from onnxplain.signal.show import pixels_of
    from onnxplain.signal.show import show as picture_of

    graph = open_graph(model, provider)
    pictures: list[ImageLike] = []
    failures = []
    for file in find_images(images):
        try:
            # Cut at once: a folder's pictures, all of them at full size, would fill the memory.
            pictures.append(pixels_of(graph, [file])[0])
        except InputError as error:
            failures.append(str(error))
    for reason in failures:
        complain(reason)
    if not pictures:
        raise InputError("none of the pictures can be read")
    write_image(picture_of(graph, pictures), path)
    say(f"{path}  {len(pictures)} pictures, {graph.session.provider}")
    if failures:
        raise typer.Exit(1)


@_command
@with_options(
    "settings",
    Settings,
    without=["classifier", "weights", "size", "autoencoder"],
    defaults={"tune_epochs": 10},
)
def study(
    *,
    settings: Settings,
    classifiers: Annotated[
        list[str],
        typer.Option(
            "--classifier",
            "-c",
            help="Give it at least twice: a name as for `onnxplain export`, a TorchScript file "
            "(onnxplain --trust), or plain, residual or dense, small ones that are trained here.",
        ),
    ],
    folder: Annotated[
        Path, typer.Option("--out", "-o", help="The folder to work in; the page is report.html.")
    ] = Path("study"),
    size: Annotated[
        int | None,
        typer.Option(min=1, help="As for `signal train`.", show_default="224; for digits 32"),
    ] = None,
    autoencoder: Annotated[
        str | None,
        typer.Option(help="As for `signal train`.", show_default="segnet; for digits segnet-tiny"),
    ] = None,
    classifier_epochs: Annotated[
        int, typer.Option(min=1, help="Epochs of the small classifiers' training.")
    ] = 20,
    provider: Provider = "auto",
) -> None:
    """Compare classifiers by the signal that they let in, on one HTML page.

    Trains an autoencoder, tunes it for each classifier, and measures every classifier on every
    signal with the exported graphs. The same command goes on where it was interrupted.

    \b
        onnxplain signal study digits -c plain -c residual -c dense
        onnxplain signal study imagenet/ -c alexnet -c vgg16 --start authors.pth --epochs 0
    """
    from onnxplain.signal.report import write_report
    from onnxplain.signal.study import Study, run_study

    small = settings.data == "digits"
    settings = replace(
        settings,
        size=size or (32 if small else 224),
        autoencoder=autoencoder or ("segnet-tiny" if small else "segnet"),
    )
    wanted = Study(settings, tuple(classifiers), classifier_epochs)
    with progress_bar() as progress:
        task = progress.add_task("starting", total=None)
        results = run_study(
            wanted,
            folder,
            provider,
            lambda what, done, total: progress.update(
                task, description=what, completed=done, total=total
            ),
        )
    page = folder / "report.html"
    write_report(wanted, results, folder, provider, page)
    _show_results(results, page)
    _say_skipped(results.skipped)
    if results.skipped:
        raise typer.Exit(1)


def _show_results(results: Results, page: Path) -> None:
    """The accuracies as a table, the order, and where the page is."""
    table = Table("accuracy of", *(f"on {name}'s" for name in results.names), "on originals")
    for i, name in enumerate(results.names):
        cells = [f"{accuracy:.1%}" for accuracy in (*results.matrix[i], results.original[i])]
        table.add_row(name, *cells)
    out.print(table)
    say(f"order: {results.order.verdict}")
    say(f"{page}  {results.pictures} pictures")


def _say_skipped(names: list[str]) -> None:
    if names:
        complain(f"{len(names)} pictures could not be read and were skipped: {', '.join(names)}")
