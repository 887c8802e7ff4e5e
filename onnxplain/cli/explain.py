"""The command `onnxplain explain`."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from onnxplain.cli.app import command
from onnxplain.cli.console import complain, err, note_backend, say, shown
from onnxplain.cli.declared import with_options
from onnxplain.cli.export_options import as_live
from onnxplain.cli.given import Box, Given, Position, Query, Region, read_inputs
from onnxplain.cli.options import (
    AtLeast,
    Images,
    ModelOrNetwork,
    Parameters,
    Precision,
    Provider,
    Targets,
    Temperature,
    as_target,
)
from onnxplain.cli.progress import progress_bar
from onnxplain.cli.records import free_stems, json_line
from onnxplain.contract.explain import RELEVANCE, TARGET
from onnxplain.contract.objective import EXPLAINED_BOX
from onnxplain.contract.picture import GRID, PictureOptions
from onnxplain.errors import InputError
from onnxplain.files import make_folder, replacing
from onnxplain.options import declared

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxplain.contract.explain import Metadata, Preprocessing
    from onnxplain.runtime import Explainer, Explanation
    from onnxplain.runtime.inputs.scalars import Temperatures

Folder = Annotated[
    Path, typer.Option("--out", "-o", help="Where pictures and predictions.jsonl go.")
]
_COMPARED = 8  # images that --precision auto looks at
_MANY = 100  # from so many images on, `--batch auto` costs less than it may gain

Batch = Annotated[
    str,
    typer.Option(
        help="Images and targets per run of the graph; auto times 1, 2, 4, … on the first image "
        f"if there are at least {_MANY}."
    ),
]

Method = Annotated[
    str | None,
    typer.Option(help="Of a network by name: what to explain by.", show_default="excitation"),
]

AllowNonfinite = Annotated[
    bool,
    typer.Option(
        "--allow-nonfinite",
        help="Explain an image whose logits or pullback hold NaN or infinity, instead of "
        "reporting it; such numbers are null in predictions.jsonl.",
    ),
]


@command
@with_options("look", PictureOptions, defaults={"style": GRID})
def explain(
    model: ModelOrNetwork,
    images: Images,
    folder: Folder = Path("explanations"),
    target: Targets = None,
    *,
    look: PictureOptions,
    method: Method = None,
    temperature: Temperature = None,
    param: Parameters = None,
    provider: Provider = "auto",
    precision: Precision = "float32",
    at_least: AtLeast = None,
    batch: Batch = "auto",
    allow_nonfinite: AllowNonfinite = False,
    region: Region = None,
    query: Query = None,
    box: Box = None,
    position: Position = None,
    given: Given = None,
) -> None:
    """Explain images: one picture each, and a JSON line each in predictions.jsonl.

    An image that cannot be read is reported, the others are explained, and the exit status is 1.
    Of a file that explains by other values than an image, .npz files with its inputs by name.
    With --precision auto, the precisions are compared on the same images. Images are decoded and
    pictures drawn while others are explained.

    A network's name in place of a file is exported once, into the cache, and its temperature is the
    one that is known for it.

    \b
        onnxplain explain efficientnet-lite0 cat.jpg
        onnxplain explain resnet50.explain.onnx cat.jpg
        onnxplain explain resnet50.explain.onnx photos/ 'more/*.png' -o why
        onnxplain explain resnet50.explain.onnx cat.jpg -t -1 -t -2 -t 'tiger cat'
        onnxplain explain resnet50.explain.onnx cat.jpg --style overlay --signed --colour-bar
        onnxplain explain resnet50.explain.onnx photos/ --provider openvino --precision auto
        onnxplain explain yolov8n.explain.onnx street.jpg -t -1 -t -2       # two objects
        onnxplain explain fcn.explain.onnx street.jpg -t 15 --region mask.png
        onnxplain explain clip.explain.onnx cat.jpg --query text.npy
        onnxplain explain text.explain.onnx sentences.npz -t 1
    """
    from onnxplain.named import graph_of
    from onnxplain.runtime import find_images
    from onnxplain.runtime.inputs.asked import check_asked
    from onnxplain.runtime.loading import signature_of

    look.check()
    with err.status("reading the file") as status:
        model = graph_of(model, method, lambda stage: status.update(f"{model}: {stage}"))
    signature = signature_of(model)
    if signature.metadata.values:
        _no_options_of_images(look, batch)
    else:
        find_images(images)
    live = as_live(temperature, param)
    named = {"region": region, "query": query, "box": box, "position": position}
    inputs = read_inputs(signature.metadata, named, given)
    wanted = [as_target(text) for text in target] if target else None
    check_asked(signature, wanted, live, inputs)
    if precision == "auto":
        explainer = _fastest(model, images, provider, at_least, signature.metadata.preprocessing)
    else:
        import onnxplain

        explainer = onnxplain.load(model, provider, precision, at_least=at_least)
    explainer.allow_nonfinite = allow_nonfinite
    note_backend(explainer)
    if explainer.metadata.values:
        from onnxplain.cli.explain_arrays import explain_arrays

        explain_arrays(explainer, images, folder, target, live, inputs)
        return
    explain_images(explainer, images, folder, target, look, live, batch, inputs)


def _no_options_of_images(look: PictureOptions, batch: str) -> None:
    """
    Raises:
        InputError: one was given.
    """
    usual = PictureOptions(style=GRID)
    names = declared(PictureOptions)
    of_images = [name for name in names if getattr(look, name) != getattr(usual, name)]
    for name in [*of_images, *(["batch"] if batch != "auto" else [])]:
        raise InputError(
            f"--{name.replace('_', '-')} is of images, and this file explains by other values: "
            "leave it out"
        )


def _fastest(
    model: Path, images: list[str], provider: str, at_least: float | None, pre: Preprocessing
) -> Explainer:
    """What `--precision auto` chooses by the first images, with a table of what it tried."""
    from onnxplain.runtime import find_images
    from onnxplain.runtime.loading import fastest

    with err.status("comparing the precisions"):
        compared = list(itertools.islice(_usable(find_images(images), pre), _COMPARED))
        explainer, trials = fastest(model, compared, provider, None, at_least)
    table = Table("provider", "precision", "cosine", "ms", "")
    for trial in trials:
        tried = not math.isnan(trial.cosine)
        table.add_row(
            trial.provider,
            trial.precision,
            f"{trial.cosine:.6f}" if tried else "",
            f"{1000 * trial.seconds:.1f}" if math.isfinite(trial.seconds) else "",
            shown(trial.problem),
        )
    err.print(table)
    return explainer


def _usable(paths: Iterable[Path], pre: Preprocessing) -> Iterator[Path]:
    """The images that can be read, and are large enough for the network; the others are reported
    when all are explained."""
    from onnxplain.runtime.inputs.batches import check_size
    from onnxplain.runtime.inputs.images import load_image

    for path in paths:
        with suppress(InputError):
            check_size(load_image(path).size, pre)
            yield path


def explain_images(
    explainer: Explainer,
    images: list[str],
    folder: Path,
    target: list[str] | None,
    look: PictureOptions,
    temperature: Temperatures,
    batch: str,
    inputs: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """What the command does once it has what runs the graph."""
    from onnxplain.runtime import find_images
    from onnxplain.runtime.folder import explain_files
    from onnxplain.runtime.pictures.figures import draw, write_image

    paths = find_images(images)
    targets = [as_target(text) for text in target or [_default_target(explainer)]]
    size = _batch_size(explainer, paths, batch, 1 if explainer.multi_target else len(targets))
    make_folder(folder)
    stems = dict(zip(paths, free_stems(paths, folder, [".png"]), strict=True))

    def picture(path: Path, explanation: Explanation) -> dict[str, Any]:
        drawn = folder / f"{stems[path]}.png"
        write_image(draw(explanation.rows(), look), drawn)
        return _record(path, drawn, explanation, explainer.metadata)

    failed, start = 0, time.perf_counter()
    with replacing(folder / "predictions.jsonl") as beside, progress_bar() as progress:
        task = progress.add_task(f"explaining, {size} at a time", total=len(paths))
        with beside.open("w", encoding="utf-8") as log:
            explained = explain_files(explainer, paths, targets, picture, temperature, size, inputs)
            for path, made in explained:
                if isinstance(made, InputError):
                    failed += 1
                    complain(str(made))
                    made = {"image": str(path), "error": str(made)}
                log.write(json_line(made))
                progress.advance(task)
    done, seconds = len(paths) - failed, time.perf_counter() - start
    rate = f", {done / seconds:.1f} per second" if done > 1 else ""
    say(f"{done} of {len(paths)} images explained{rate}, in {folder}")
    if failed:
        raise typer.Exit(1)


def _default_target(explainer: Explainer) -> str:
    own = explainer.metadata.objective.inputs.get(TARGET)
    return "-1" if own is None or own.default is None else f"{own.default:g}"


def _batch_size(explainer: Explainer, paths: list[Path], batch: str, rows: int) -> int:
    """What `--batch` says; for auto, what is best on the first image that can be read.

    For a few images that is one in a run, with all its targets, `rows`.
    """
    from onnxplain.runtime.folder import best_batch_size

    if batch != "auto":
        if not batch.isdecimal() or not int(batch):
            raise InputError(f"--batch takes a number from 1 up, or auto, not {batch!r}")
        return int(batch)
    if len(paths) < _MANY:
        signature = explainer.backend.signature
        return signature.batch or min(max(signature.least, rows), signature.most or rows)
    pre = explainer.metadata.preprocessing
    with err.status("finding the best batch"):
        return next((best_batch_size(explainer, path) for path in _usable(paths, pre)), 1)


def _record(
    image: Path, picture: Path, explanation: Explanation, metadata: Metadata
) -> dict[str, Any]:
    files = {"image": str(image), "picture": str(picture)}
    record = _predicted(explanation, image, metadata)
    if metadata.kind == RELEVANCE and "*" not in metadata.method:  # products conserve nothing
        sums = explanation.relevance_sum.reshape(-1).tolist()
        for target, arrived in zip(record["targets"], sums, strict=True):
            target["relevance_sum"] = arrived
    return {**files, **record}


def _predicted(explanation: Explanation, image: Path, metadata: Metadata) -> dict[str, Any]:
    """What the network says, and of what is explained."""
    rows = [target for row in explanation.rows() for target in row.targets]
    indices = explanation.targets.reshape(-1).tolist()
    if not explanation.is_of_class:
        found: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in rows]
        for k, target in enumerate(found):
            if explanation.explained.classes:
                target["index"] = indices[k]
        if EXPLAINED_BOX in explanation.outputs:
            boxes = _in_photograph(explanation.outputs[EXPLAINED_BOX], image, metadata)
            for target, box in zip(found, boxes, strict=True):
                target["box"] = box
        return {"objective": explanation.explained.name, "targets": found}
    return {
        "predictions": [{"name": name, "probability": p} for name, p in explanation.labels(5)[0]],
        "targets": [
            {"index": index, "name": name, "probability": p}
            for index, (name, p) in zip(indices, rows, strict=True)
        ],
    }


def _in_photograph(boxes: NDArray[Any], image: Path, metadata: Metadata) -> list[list[float]]:
    from onnxplain.runtime.inputs.batches import box_in_photograph
    from onnxplain.runtime.inputs.images import size_of

    held, pre = metadata.pixels.held(size_of(image)), metadata.preprocessing
    placed: list[list[float]] = box_in_photograph(boxes.reshape(-1, 4), held, pre).tolist()
    return placed
