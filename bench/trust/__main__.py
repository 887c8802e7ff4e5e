"""`python -m onnxplain.bench.trust digits|photographs`: measure, and keep in results/trust.json.

`digits` takes every method and metric to a small network that is trained here, of pictures in which
is known where the class is; `photographs` takes what is affordable to EfficientNet-Lite0 with its
trained weights, to photographs that packages bring and their mirror images. The graphs and scores
are kept in `--work`, where the next run goes on. After `--minutes`, or interrupted, the images that
are whole are kept as the result.

    python -m onnxplain.bench.readme bench/results/trust.json docs/trust.md
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from onnxplain.bench.packaged import write_photographs
from onnxplain.bench.progress import progress_bar
from onnxplain.bench.trust.candidates import written
from onnxplain.bench.trust.digits import SIZE, train, untrained, write_canvases
from onnxplain.evaluation import METRICS, Evaluation, Metric, Score, evaluate
from onnxplain.evaluation.choosing import costs
from onnxplain.evaluation.metrics import MASKED, RANDOMISED
from onnxplain.evaluation.protocols import SEMANTIC_PULLBACKS
from onnxplain.evaluation.store import Store
from onnxplain.files import replacing
from onnxplain.machine import machine

RESULTS = Path(__file__).resolve().parents[1] / "results/trust.json"
NETWORK = "efficientnet-lite0"
SHOWING = ("chelsea", "coffee", "rocket", "motorcycle-left", "hopper", "flower")
"""Photographs of what ImageNet has classes for."""

SHOWN = tuple(m for m in METRICS.values() if m.on != RANDOMISED)
AFFORDABLE = tuple(m for m in SHOWN if m.on != MASKED and not m.long)

Progress = Callable[[str, int, int], object]


def digits(work: Path, count: int, progress: Progress) -> dict[str, Any]:
    """Of the class that is there, by every metric that one network can be asked."""
    kept = work / "digits.pt"
    network = untrained()
    if not kept.is_file():
        accuracy = train(network, lambda done, total: progress("training", done, total))
        work.mkdir(parents=True, exist_ok=True)
        torch.save({"weights": network.state_dict(), "accuracy": accuracy}, kept)
    made = torch.load(kept, weights_only=True)
    network.load_state_dict(made["weights"])
    settings = {
        **{"example": torch.zeros(1, 1, SIZE, SIZE), "mean": [0.5], "std": [0.5]},
        "fit": "squash",  # a picture is of the network's size, and nothing is cut off
    }
    graphs = _graphs(network.eval(), work, True, settings, progress)
    masks = work / "masks"
    classes, share = write_canvases(work / "canvases", masks, count)
    labels = {path.name: str(label) for path, label in classes.items()}
    found = _scores(graphs, [*classes], SHOWN, work, progress, labels=labels, masks=masks)
    return {"accuracy": made["accuracy"], "mask share": share, **found}


def photographs(work: Path, count: int, progress: Progress) -> dict[str, Any]:
    """Of the class that is predicted, by what is affordable; with what an explanation costs."""
    graphs = _graphs(NETWORK, work, False, {}, progress)
    paths = write_photographs(work / "photographs", SHOWING)
    for path in list(paths):
        paths.append(path.with_stem(f"{path.stem}-mirrored"))
        ImageOps.mirror(Image.open(path)).save(paths[-1])
    found = _scores(graphs, sorted(paths)[:count], AFFORDABLE, work, progress)
    ratios = costs([*graphs.values()], "cpu")
    return {"network": NETWORK, "cost": dict(zip(graphs, ratios, strict=True)), **found}


def _graphs(
    source: Any, work: Path, slow: bool, settings: Mapping[str, Any], progress: Progress
) -> dict[str, Path]:
    return written(
        source, work / "graphs", slow, settings, lambda n, of: progress("exporting", n, of)
    )


def _scores(
    graphs: Mapping[str, Path],
    paths: Sequence[Path],
    metrics: Sequence[Metric],
    work: Path,
    progress: Progress,
    **known: Any,
) -> dict[str, Any]:
    """The evaluation; interrupted, that of the images which are whole."""
    folder = work / "scores"
    try:
        evaluation = evaluate(
            [*graphs.values()],
            [*map(str, paths)],
            metrics=[metric.name for metric in metrics],
            out=folder,
            provider="cpu",
            progress=lambda done, total: progress("scores", done, total),
            **known,
        )
    except (KeyboardInterrupt, TimeoutError):
        evaluation = whole(Store(folder).known.values(), [*graphs], metrics)
    return evaluation.to_json() | {"of": len(paths)}


def whole(scores: Iterable[Score], graphs: Sequence[str], metrics: Sequence[Metric]) -> Evaluation:
    """The images of which there is every score."""
    found = {(score.image, score.graph, score.metric): score for score in scores}
    cells = [(graph, metric.name) for graph in graphs for metric in metrics]
    images = sorted({image for image, *_ in found})
    images = [image for image in images if all((image, *cell) in found for cell in cells)]
    rows = tuple(found[image, *cell] for image in images for cell in cells)
    return Evaluation(tuple(graphs), tuple(metrics), tuple(images), rows, SEMANTIC_PULLBACKS.seed)


DATA = {"digits": (digits, 24), "photographs": (photographs, 12)}
"""What there is, and on how many images."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="onnxplain.bench.trust", description=__doc__)
    parser.add_argument("what", choices=[*DATA])
    parser.add_argument("--images", type=int, help="So many alone.")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="Stop after so many.")
    parser.add_argument("--work", type=Path, default=Path("build/trust"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    until = time.monotonic() + 60 * given.minutes
    measure, count = DATA[given.what]
    with progress_bar() as bar:
        task = bar.add_task(given.what, total=None)

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)
            if what == "scores" and time.monotonic() > until:
                raise TimeoutError

        found = measure(given.work / given.what, given.images or count, progress)
    known = json.loads(given.out.read_text()) if given.out.is_file() else {}
    with replacing(given.out) as beside:
        kept = {**known, given.what: {"machine": machine(), **found}}
        beside.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
