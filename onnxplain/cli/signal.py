"""The commands `onnxplain signal train`, `export`, `show` and `study`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from onnxplain.cli.app import app, guarded
from onnxplain.cli.console import err, out
from onnxplain.cli.options import Images, Weights
from onnxplain.cli.progress import progress_bar

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


DataName = Annotated[
    str,
    typer.Argument(
        help="A folder of class folders, or of `train` and `test` with those; `digits` "
        "(scikit-learn's); or NAME:FOLDER of a torchvision dataset, `CIFAR10:data`. For "
        "reconstruction alone, also a folder of pictures."
    ),
]
Size = Annotated[int, typer.Option(min=1, help="Of the square pictures, in pixels.")]
Network = Annotated[
    str, typer.Option(help="segnet (the paper's), segnet-small or segnet-tiny, for small pictures.")
]
Start = Annotated[
    Path | None,
    typer.Option(help="Weights to begin with: a training's autoencoder.pt, or the authors'."),
]
Epochs = Annotated[int, typer.Option(min=0, help="Of stage 1, reconstruction.")]
TuneEpochs = Annotated[int, typer.Option(min=0, help="Of stage 2, the classifier's gradients.")]
Batch = Annotated[int, typer.Option(min=1, help="Pictures of a step, in each process.")]
Rate = Annotated[float, typer.Option(help="Adam's step size in stage 1.")]
TuneRate = Annotated[float, typer.Option(help="Adam's step size in stage 2.")]
Half = Annotated[
    str, typer.Option(help="float32; bfloat16 or float16 (on GPUs) for mixed precision.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of weights, order and random squares.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that decode pictures.")]
GraphProvider = Annotated[
    str, typer.Option(help="What runs the graphs: auto, cpu, openvino, cuda or ort-tensorrt.")
]


@_command
def train(
    data: DataName,
    folder: Annotated[Path, typer.Option("--out", "-o", help="The folder to write to.")],
    classifier: Annotated[
        str | None,
        typer.Option(
            "--classifier",
            "-c",
            help="Whose gradients tune the decoder: a name as of `onnxplain export`, or a "
            "TorchScript file. Without one, reconstruction alone.",
        ),
    ] = None,
    weights: Weights = "DEFAULT",
    size: Size = 224,
    autoencoder: Network = "segnet",
    start: Start = None,
    epochs: Epochs = 10,
    tune_epochs: TuneEpochs = 5,
    batch: Batch = 32,
    rate: Rate = 1e-3,
    tune_rate: TuneRate = 1e-4,
    precision: Half = "float32",
    seed: Seed = 0,
    workers: Workers = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it stopped.")] = False,
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
    from onnxplain.signal.settings import Settings

    settings = Settings(
        data=data,
        size=size,
        autoencoder=autoencoder,
        start=str(start) if start else None,
        classifier=classifier,
        weights=weights,
        epochs=epochs,
        tune_epochs=tune_epochs,
        batch=batch,
        rate=rate,
        tune_rate=tune_rate,
        precision=precision,
        seed=seed,
        workers=workers,
    )
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
    out.print(f"{folder / GRAPH}  {_size_of(folder / GRAPH)}", highlight=False, soft_wrap=True)


@_command
def export(
    weights_file: Annotated[
        Path, typer.Argument(help="A training's autoencoder.pt, or the authors' SegNet.")
    ],
    path: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path(GRAPH),
    size: Annotated[
        int | None, typer.Option(min=1, help="Of the square pictures. [default: as trained]")
    ] = None,
    classifier: Annotated[
        str | None, typer.Option("--classifier", "-c", help="Put one behind it, by name.")
    ] = None,
    weights: Weights = "DEFAULT",
) -> None:
    """Write an autoencoder as ONNX, alone or with a classifier behind it.

    Standard operators, which ONNX Runtime, OpenVINO and TensorRT all run: the unpooling too.

    \b
        onnxplain signal export runs/resnet50/autoencoder.pt -o resnet50.signal.onnx
        onnxplain signal export authors.pth --classifier resnet50
    """
    from onnxplain.export.sources.source import torch_network
    from onnxplain.signal.classifiers import OnPixels, frozen
    from onnxplain.signal.export import export_autoencoder
    from onnxplain.signal.weights import load_autoencoder, start_from

    autoencoder = load_autoencoder(weights_file)
    if size is not None:
        autoencoder = start_from(weights_file, size, autoencoder.design.channels)
    network, labels = None, tuple[str, ...]()
    if classifier:
        side = autoencoder.design.size
        found = torch_network(classifier, weights, (side, side))
        pre = found.preprocessing
        network, labels = frozen(OnPixels(found.module, pre.mean, pre.std)), found.labels
    export_autoencoder(autoencoder, path, network, labels)
    out.print(f"{path}  {_size_of(path)}", highlight=False, soft_wrap=True)


@_command
def show(
    model: Annotated[Path, typer.Argument(help="A graph of `signal train` or `signal export`.")],
    images: Images,
    path: Annotated[Path, typer.Option("--out", "-o", help="The picture to write.")] = Path(
        "signal.png"
    ),
    provider: GraphProvider = "auto",
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
        err.print(f"[red]{escape(reason)}[/]", soft_wrap=True, highlight=False)
    if not pictures:
        raise InputError("none of the pictures can be read")
    write_image(picture_of(graph, pictures), path)
    out.print(f"{path}  {len(pictures)} pictures, {graph.provider}", highlight=False)
    if failures:
        raise typer.Exit(1)


@_command
def study(
    data: DataName,
    classifiers: Annotated[
        list[str],
        typer.Option(
            "--classifier",
            "-c",
            help="Give it two times at least: a name as of `onnxplain export`, a TorchScript "
            "file, or plain, residual or dense, small ones that are trained here.",
        ),
    ],
    folder: Annotated[
        Path, typer.Option("--out", "-o", help="The folder to work in; the page is report.html.")
    ] = Path("study"),
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Of the square pictures. [default: 224, digits 32]"),
    ] = None,
    autoencoder: Annotated[
        str | None, typer.Option(help="As of `signal train`. [default: segnet, digits segnet-tiny]")
    ] = None,
    start: Start = None,
    epochs: Epochs = 10,
    tune_epochs: TuneEpochs = 10,
    classifier_epochs: Annotated[int, typer.Option(min=1, help="Of the small classifiers.")] = 20,
    batch: Batch = 32,
    rate: Rate = 1e-3,
    tune_rate: TuneRate = 1e-4,
    precision: Half = "float32",
    seed: Seed = 0,
    workers: Workers = 0,
    provider: GraphProvider = "auto",
) -> None:
    """Compare classifiers by the signal that they let in, on one HTML page.

    Trains an autoencoder, tunes it for each classifier, and measures every classifier on every
    signal by the exported graphs. The same call goes on where it was interrupted.

    \b
        onnxplain signal study digits -c plain -c residual -c dense
        onnxplain signal study imagenet/ -c alexnet -c vgg16 --start authors.pth --epochs 0
    """
    from onnxplain.signal.report import write_report
    from onnxplain.signal.study import Study, run_study

    small = data == "digits"
    wanted = Study(
        data=data,
        classifiers=tuple(classifiers),
        size=size or (32 if small else 224),
        autoencoder=autoencoder or ("segnet-tiny" if small else "segnet"),
        start=str(start) if start else None,
        epochs=epochs,
        tune_epochs=tune_epochs,
        classifier_epochs=classifier_epochs,
        batch=batch,
        rate=rate,
        tune_rate=tune_rate,
        precision=precision,
        seed=seed,
        workers=workers,
    )
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
    table = Table("accuracy of", *(f"on {name}'s" for name in results.names), "on originals")
    for i, name in enumerate(results.names):
        cells = [f"{accuracy:.1%}" for accuracy in (*results.matrix[i], results.original[i])]
        table.add_row(name, *cells)
    out.print(table)
    out.print(f"order: {results.order.verdict}", highlight=False, soft_wrap=True)
    out.print(f"{page}  {results.pictures} pictures", highlight=False, soft_wrap=True)
    _say_skipped(results.skipped)
    if results.skipped:
        raise typer.Exit(1)


def _say_skipped(names: list[str]) -> None:
    if names:
        text = f"{len(names)} pictures could not be read and were skipped: {', '.join(names)}"
        err.print(f"[red]{escape(text)}[/]", soft_wrap=True, highlight=False)


def _size_of(path: Path) -> str:
    return f"{path.stat().st_size / 2**20:.1f} MiB"
