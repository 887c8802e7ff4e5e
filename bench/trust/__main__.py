"""`python -m onnxplain.bench.trust digits|photographs`: measure, and keep in results/trust.json.

A run that was interrupted goes on where it was, from the folder `--work`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from onnxplain.bench.packaged import write_photographs
from onnxplain.bench.progress import progress_bar
from onnxplain.bench.trust.candidates import CANDIDATES
from onnxplain.bench.trust.digits import SIZE, train, untrained, write_canvases
from onnxplain.bench.trust.localisation import LOCALISATION, localised
from onnxplain.evaluation import evaluate
from onnxplain.evaluation.statistics import estimates
from onnxplain.files import replacing
from onnxplain.machine import machine
from onnxplain.reference.forward import write_forward
from onnxplain.runtime import load
from onnxplain.runtime.inputs.batches import as_batch
from onnxplain.runtime.sessions import open_session
from onnxplain.runtime.verification import usual_run
from onnxplain.timing import ratio, rounds

RESULTS = Path(__file__).resolve().parents[1] / "results/trust.json"
NETWORK = "efficientnet-lite0"
SHOWING = ("chelsea", "coffee", "rocket", "motorcycle-left", "hopper", "flower")
"""Photographs of what ImageNet has classes for."""

_ROUNDS = 5


def digits(work: Path, count: int, metrics: Sequence[str] | None) -> dict[str, Any]:
    """On canvases of a network trained here, where the digits lie too."""
    kept = work / "digits.pt"
    network = untrained()
    if not kept.is_file():
        accuracy = train(network)
        work.mkdir(parents=True, exist_ok=True)
        torch.save({"weights": network.state_dict(), "accuracy": accuracy}, kept)
    made = torch.load(kept, weights_only=True)
    network.load_state_dict(made["weights"])
    accuracy = made["accuracy"]
    settings = {"example": torch.zeros(1, 1, SIZE, SIZE), "mean": [0.5], "std": [0.5]}
    graphs = _graphs(network.eval(), work / "graphs", settings, slow=True)
    paths, classes, masks = write_canvases(work / "canvases", count)
    labels = {path.name: str(label) for path, label in zip(paths, classes, strict=True)}
    found = _measured(graphs, paths, labels, metrics, work / "scores")
    for name, graph in graphs.items():
        own = localised(graph, paths, classes, masks)
        found["scores"][name] |= {measure: _mean(scores) for measure, scores in own.items()}
    found["better"] |= dict.fromkeys(LOCALISATION, "higher")
    return {"accuracy": accuracy, **found}


def photographs(work: Path, count: int, metrics: Sequence[str] | None) -> dict[str, Any]:
    """On photographs and their mirror images, of the class that is predicted."""
    graphs = _graphs(NETWORK, work / "graphs", {}, slow=False)
    paths = write_photographs(work / "photographs", SHOWING)
    for path in list(paths):
        mirrored = path.with_stem(f"{path.stem}-mirrored")
        ImageOps.mirror(Image.open(path)).save(mirrored)
        paths.append(mirrored)
    return _measured(graphs, paths[:count], {}, metrics, work / "scores")


def _graphs(source: Any, folder: Path, settings: Mapping[str, Any], slow: bool) -> dict[str, Path]:
    """Each candidate's file, by its name; without those for which the network has not what they
    need."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [candidate for candidate in CANDIDATES if slow or not candidate.slow]
    made = {one.name: one.write(source, folder, settings) for one in wanted}
    return {name: path for name, path in made.items() if path is not None}


def _measured(
    graphs: Mapping[str, Path],
    paths: Sequence[Path],
    labels: Mapping[str, str],
    metrics: Sequence[str] | None,
    scores: Path,
) -> dict[str, Any]:
    with progress_bar() as progress:
        task = progress.add_task("measuring", total=None)
        found = evaluate(
            [*graphs.values()],
            [*map(str, paths)],
            labels=labels,
            metrics=metrics,
            out=scores,
            provider="cpu",
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    of = {metric.name: found.of(metric.name) for metric in found.metrics}
    return {
        "images": len(paths),
        "better": {metric.name: metric.better for metric in found.metrics},
        "cost": _costs(graphs, paths[0]),
        "scores": {
            name: {metric: _mean(rows[i]) for metric, rows in of.items()}
            for i, name in enumerate(graphs)
        },
    }


def _mean(scores: Any) -> list[float]:
    """Mean, and the interval of it."""
    (found,) = estimates(np.asarray(scores, np.float64)[None])
    return [found.mean, found.low, found.high]


def _costs(graphs: Mapping[str, Path], image: Path) -> dict[str, float]:
    """Explain ÷ forward of each, by interleaved rounds."""
    first = next(iter(graphs.values()))
    explainers = {name: load(path, "cpu") for name, path in graphs.items()}
    batch, _ = as_batch(str(image), next(iter(explainers.values())).metadata.preprocessing)
    forward = open_session(write_forward(first, first.with_suffix(".forward")), "cpu")
    calls: dict[str, Callable[[], object]] = {
        name: usual_run(explainer, batch) for name, explainer in explainers.items()
    }
    calls[""] = lambda: forward.run({"image": batch})
    seconds = rounds(calls, _ROUNDS, 1)
    return {name: ratio(seconds[name], seconds[""]) for name in graphs}


DATA = {"digits": (digits, 24), "photographs": (photographs, 12)}
"""What there is, and on how many images."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="onnxplain.bench.trust", description=__doc__)
    parser.add_argument("what", choices=[*DATA])
    parser.add_argument("--images", type=int, help="So many alone.")
    parser.add_argument("--metrics", help="With commas between; else the protocol's.")
    parser.add_argument("--work", type=Path, default=Path("trust"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    measure, count = DATA[given.what]
    metrics = given.metrics.split(",") if given.metrics else None
    found = measure(given.work / given.what, given.images or count, metrics)
    known = json.loads(given.out.read_text()) if given.out.is_file() else {}
    with replacing(given.out) as beside:
        kept = {**known, "machine": machine(), given.what: found}
        beside.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
