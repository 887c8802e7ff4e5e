"""The command line: `onnxplain export | explain | verify | info | demo`.

Exit status: see `onnxplain.errors`. Everything heavy is imported by the command that needs it.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from onnxplain import __version__
from onnxplain.errors import InputError, OnnxplainError

app = typer.Typer(
    name="onnxplain",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    help="""Compile a network into a network that explains itself.

One standard ONNX graph: image and target class in, logits [bold]and[/] the picture of why out.

\b
    onnxplain demo                                   # see it work
    onnxplain export resnet50                        # or a checkpoint, or your .onnx file
    onnxplain explain resnet50.explain.onnx cat.jpg  # explanations/cat.png""",
)

out = Console()
err = Console(stderr=True)

INTERRUPTED = 130


def main() -> None:
    app()


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command whose errors become a sentence and an exit status."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except OnnxplainError as error:
            err.print(f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True, highlight=False)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            err.print("interrupted; nothing half-written was left")
            raise typer.Exit(INTERRUPTED) from None

    app.command(no_args_is_help=function.__name__ != "demo")(run)
    return run


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"onnxplain {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


Model = Annotated[Path, typer.Argument(help="An explain graph, made by `onnxplain export`.")]
Provider = Annotated[str, typer.Option(help="What runs the graph: auto or cpu.")]
Weights = Annotated[
    str,
    typer.Option(
        help="For a network by name: DEFAULT (pretrained), none (random, from a fixed seed), or "
        "the path of a checkpoint (with or without `module.` prefixes)."
    ),
]


@command
def export(
    source: Annotated[
        str,
        typer.Argument(
            help="An .onnx file; `efficientnet-lite0`; or the name of a torchvision classifier."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file to write. [default: NAME.explain.onnx]"),
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="excitation, gradient, guided, deconvnet or input-x-gradient."),
    ] = "excitation",
    temperature: Annotated[
        float | None,
        typer.Option(help="How soft the gates are; 0.3 for excitation unless given."),
    ] = None,
    weights: Weights = "DEFAULT",
    size: Annotated[
        str | None,
        typer.Option(help="The image's size in pixels, `224` or `224x320` (height x width)."),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Per channel, of pixels in [0, 1]: `0.5,0.5,0.5`.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="As --mean.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Class names: a text file, one a line, or a JSON list.")
    ] = None,
    multi_target: Annotated[
        bool, typer.Option(help="Explain K targets of each image from one forward pass.")
    ] = False,
    live_temperature: Annotated[
        bool, typer.Option(help="Make the temperature an input of the graph.")
    ] = False,
    input_name: Annotated[
        str | None, typer.Option("--input", help="The image input, where a file has several.")
    ] = None,
    output_name: Annotated[
        str | None, typer.Option("--output", help="The logits, where a file has several outputs.")
    ] = None,
) -> None:
    """Compile a network into an explain graph.

    \b
        onnxplain export resnet50                               # pretrained, from torchvision
        onnxplain export resnet50 --weights finetuned.pth -o mine.explain.onnx
        onnxplain export classifier.onnx --method gradient      # needs no PyTorch
        onnxplain export efficientnet-lite0 --temperature 1
    """
    import onnxplain
    from onnxplain.export.pipeline import STAGES

    path = output or Path(f"{Path(source).name.removesuffix('.onnx')}.explain.onnx")
    with _progress() as progress:
        task = progress.add_task(STAGES[0], total=len(STAGES))
        begun: list[str] = []

        def begin(stage: str) -> None:
            progress.update(task, description=stage, completed=len(begun))
            begun.append(stage)

        metadata = onnxplain.export(
            source,
            path,
            method=method,
            temperature=temperature,
            weights=weights,
            size=_size(size),
            mean=_numbers(mean, "--mean"),
            std=_numbers(std, "--std"),
            labels=_labels(labels),
            multi_target=multi_target,
            live_temperature=live_temperature,
            input=input_name,
            output=output_name,
            progress=begin,
        )
        progress.update(task, description="done", completed=len(STAGES))
    cost = metadata.multiply_adds["explain"] / max(metadata.multiply_adds["forward"], 1)
    out.print(
        f"{path}  {path.stat().st_size / 2**20:.1f} MiB, {metadata.method}"
        f"{_parameters(metadata.parameters)}, {cost:.2f} × the forward's multiply-adds",
        highlight=False,
        soft_wrap=True,
    )


@command
def explain(
    model: Model,
    images: Annotated[list[str], typer.Argument(help="Image files, folders and glob patterns.")],
    folder: Annotated[
        Path, typer.Option("--out", "-o", help="Where pictures and predictions.jsonl go.")
    ] = Path("explanations"),
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="A class index or name; -1 the predicted class (the default), -2 the runner-up. "
            "Give it again for more.",
        ),
    ] = None,
    style: Annotated[str, typer.Option(help="grid, pullback, heatmap or overlay.")] = "grid",
    temperature: Annotated[
        float | None, typer.Option(help="For a graph exported with --live-temperature.")
    ] = None,
    provider: Provider = "auto",
) -> None:
    """Explain images: one picture each, and a JSON line each in predictions.jsonl.

    An image that cannot be read is reported, the rest goes on, and the exit status is 1.

    \b
        onnxplain explain resnet50.explain.onnx cat.jpg
        onnxplain explain resnet50.explain.onnx photos/ 'more/*.png' -o why
        onnxplain explain resnet50.explain.onnx cat.jpg -t -1 -t -2 -t 'tiger cat'
    """
    import onnxplain
    from onnxplain.runtime import find_images

    explainer = onnxplain.load(model, provider=provider)
    paths = find_images(images)
    targets = [_target(text) for text in target or ["-1"]]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = open(folder / "predictions.jsonl", "w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror}") from error
    names = _picture_names(paths)
    failed = 0
    with log, _progress() as progress:
        task = progress.add_task("explaining", total=len(paths))
        for path, name in zip(paths, names, strict=True):
            progress.update(task, description=path.name)
            try:
                if explainer.multi_target:
                    explanation = explainer([path], [targets], temperature)
                else:
                    explanation = explainer([path] * len(targets), targets, temperature)
                explanation.save(folder / name, style=style)
                record = _record(path, folder / name, explanation)
            except InputError as error:
                failed += 1
                record = {"image": str(path), "error": str(error)}
                err.print(f"[red]{_escape(str(error))}[/]", soft_wrap=True, highlight=False)
            log.write(json.dumps(record, ensure_ascii=False) + "\n")
            progress.advance(task)
    done = len(paths) - failed
    out.print(f"{done} of {len(paths)} images explained, in {folder}", highlight=False)
    if failed:
        raise typer.Exit(1)


@command
def verify(
    model: Model,
    source: Annotated[
        str | None,
        typer.Option(
            help="The network it was exported from: efficientnet-lite0 or a torchvision name."
        ),
    ] = None,
    weights: Weights = "DEFAULT",
    image: Annotated[
        list[str] | None, typer.Option(help="Images to compare on; else seeded noise.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest relative error. [default: against the reference 1e-4 for excitation, 3e-2 "
            "for methods with hard gates, which flip in float32 where float64's do not; against "
            "finite differences 1e-2, and ten times that along noise]"
        ),
    ] = None,
    provider: Provider = "auto",
) -> None:
    """Check an explain graph: exit status 0 if it is right, 1 if not.

    With --source, against the independent PyTorch reference in float64. Without, a `gradient`
    graph against finite differences of its own logits (no PyTorch needed).

    \b
        onnxplain verify resnet50.explain.onnx --source resnet50
        onnxplain verify classifier.explain.onnx
    """
    import numpy as np

    import onnxplain
    from onnxplain.bench import parity
    from onnxplain.runtime import find_images
    from onnxplain.runtime.batches import as_batch

    explainer = onnxplain.load(model, provider=provider)
    metadata = explainer.metadata
    pre = metadata.preprocessing
    if image:
        batch, _ = as_batch(find_images(image), pre, np.dtype(np.float32))
        batch = np.moveaxis(batch, -1, 1) if pre.layout == "NHWC" else batch
    else:
        count = explainer.backend.signature.batch or 3
        shape = (count, pre.channels, pre.height, pre.width)
        batch = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    target = np.full((len(batch), 1) if explainer.multi_target else len(batch), -1)

    good = True
    table = Table("", "max |difference|", "relative error", "cosine", "")
    if source is not None:
        from onnxplain.export.source import torch_network

        limit = tolerance or (1e-4 if metadata.parameters else 3e-2)
        network = torch_network(source, weights, (pre.height, pre.width))
        with err.status("running the PyTorch reference in float64"):
            found = parity.compare(explainer, network.module, batch, target)
        for name, measured in found.items():
            passed = measured.relative_l2 <= limit
            good &= passed
            table.add_row(
                name,
                f"{measured.max_abs:.2e}",
                f"{measured.relative_l2:.2e}",
                f"{measured.cosine:.9f}",
                _verdict(passed),
            )
        title = f"against PyTorch in float64, {len(batch)} images, relative error ≤ {limit:g}"
    elif metadata.method == "gradient":
        limits = {"along the pullback": tolerance or 1e-2, "along noise": 10 * (tolerance or 1e-2)}
        with err.status("measuring finite differences"):
            measured_along = parity.finite_differences(explainer, batch[:1], target[:1])
        for kind, derivatives in measured_along.items():
            passed = derivatives.relative_error <= limits[kind]
            good &= passed
            agreement = parity.Parity.of(derivatives.predicted, derivatives.measured)
            table.add_row(
                f"{kind}, ≤ {limits[kind]:g}",
                f"{agreement.max_abs:.2e}",
                f"{derivatives.relative_error:.2e}",
                f"{agreement.cosine:.9f}",
                _verdict(passed),
            )
        title = "directional derivatives against finite differences of its own logits"
    else:
        raise InputError(
            f"a {metadata.method!r} graph is checked against the PyTorch reference: say which "
            "network it was exported from with --source (and --weights)"
        )
    table.title = f"{model}: {title}"
    out.print(table)
    if not good:
        raise typer.Exit(1)


@command
def info(model: Model) -> None:
    """Show what an explain graph holds: method, source, inputs, outputs, preprocessing, cost."""
    import onnxplain

    explainer = onnxplain.load(model)
    metadata, signature = explainer.metadata, explainer.backend.signature
    pre, cost = metadata.preprocessing, metadata.multiply_adds
    batch = signature.batch or "N"
    sizes = [pre.channels, pre.height, pre.width]
    shape = ", ".join(map(str, sizes if pre.layout == "NCHW" else [*sizes[1:], sizes[0]]))
    targets = f"{batch}, K" if signature.multi_target else f"{batch}"
    inputs = [f"image {signature.dtype} [{batch}, {shape}]", f"target int64 [{targets}]"]
    if signature.live_temperature:
        inputs.append("temperature float32 []")
    table = Table(show_header=False, title=str(model), title_justify="left")
    for name, value in {
        "method": metadata.method + _parameters(metadata.parameters),
        "source": f"{metadata.source}, exported by onnxplain {metadata.version}",
        "file": f"{model.stat().st_size / 2**20:.1f} MiB",
        "inputs": "\n".join(inputs),
        "outputs": f"logits [{batch}, {signature.classes}]\npullback [{targets}, {shape}]",
        "preprocessing": f"shorter side to {pre.resize} ({pre.interpolation}), "
        f"crop {pre.height} × {pre.width}\nmean {pre.mean}, std {pre.std}",
        "classes": f"{signature.classes}, "
        + (f"{metadata.labels[0]} … {metadata.labels[-1]}" if metadata.labels else "without names"),
        "multiply-adds": f"forward {cost['forward']:,}\nexplain {cost['explain']:,} "
        f"({cost['explain'] / max(cost['forward'], 1):.2f} ×)",
    }.items():
        table.add_row(name, _escape(value))
    out.print(table, highlight=False)


@command
def demo(
    folder: Annotated[
        Path, typer.Option("--out", "-o", help="Where the graphs, the pictures and figures go.")
    ] = Path("onnxplain-demo"),
    repeats: Annotated[int, typer.Option(min=1, help="Timed rounds.")] = 15,
) -> None:
    """See it work: a real ImageNet network explains three photographs.

    Exports EfficientNet-Lite0 with its trained weights, explains a cat, a coffee and a rocket for
    their top-3 classes, draws them, and measures parity with PyTorch and the time it takes.
    """
    from onnxplain.demo import run

    run(folder, repeats, out, _progress)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
    )


def _verdict(passed: bool) -> str:
    return "[green]ok[/]" if passed else "[bold red]WRONG[/]"


def _parameters(parameters: Any) -> str:
    return "".join(f", {name} {value:g}" for name, value in parameters.items())


def _target(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--size is `224` or `224x320`, not {text!r}")
    return int(parts[0]), int(parts[-1])


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} is numbers with commas between, not {text!r}") from None


def _labels(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
        return (
            [str(name) for name in json.loads(text)]
            if path.suffix == ".json"
            else text.splitlines()
        )
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the labels in {path}: {error}") from error


def _picture_names(paths: list[Path]) -> list[str]:
    """`cat.png` for `a/cat.jpg`, `cat-2.png` for `b/cat.jpg`."""
    seen: dict[str, int] = {}
    names = []
    for path in paths:
        seen[path.stem] = seen.get(path.stem, 0) + 1
        count = seen[path.stem]
        names.append(f"{path.stem}.png" if count == 1 else f"{path.stem}-{count}.png")
    return names


def _record(image: Path, picture: Path, explanation: Any) -> dict[str, Any]:
    top = explanation.labels(5)[0]
    targets = explanation.targets.reshape(-1).tolist()
    names = explanation.names if explanation.targets.ndim == 1 else explanation.names[0]
    probabilities = explanation.target_probabilities.reshape(-1).tolist()
    return {
        "image": str(image),
        "picture": str(picture),
        "predictions": [{"name": name, "probability": p} for name, p in top],
        "targets": [
            {"index": index, "name": name, "probability": p}
            for index, name, p in zip(targets, names, probabilities, strict=True)
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
