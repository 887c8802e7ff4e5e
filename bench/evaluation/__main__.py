"""Score by score: `python -m onnxplain.bench.evaluation`.

EfficientNet-Lite0 on crops of photographs that scikit-image has, five methods and the metrics of
the semantic pullbacks' paper: by explain graphs as `onnxplain evaluate` makes them, and by Quantus
over PyTorch with Captum, one after the other. Written after each image and method, so that what is
interrupted has those before it, and the next run goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image

import onnxplain
from onnxplain.bench.evaluation import peer
from onnxplain.bench.evaluation.table import AGREES
from onnxplain.bench.progress import progress_bar
from onnxplain.evaluation.cells import drawn, partners
from onnxplain.evaluation.images import Sample, listed, pixels_of
from onnxplain.evaluation.metrics import MOSAIC
from onnxplain.evaluation.protocols import SEMANTIC_PULLBACKS
from onnxplain.evaluation.scoring import Explained, Tiles, score
from onnxplain.evaluation.subject import Logits, Subject, opened
from onnxplain.export.sources.source import torch_network
from onnxplain.files import replacing, scratch
from onnxplain.machine import machine

RESULTS = Path(__file__).resolve().parents[1] / "results/evaluation.json"
METHODS = ("excitation", "semantic", "gradcam", "gradient", "input-x-gradient")
SEED = SEMANTIC_PULLBACKS.seed
_TEMPERATURE = 1.0
_SOURCE = "efficientnet-lite0"
_PHOTOGRAPHS = ("chelsea", "coffee", "rocket", "astronaut", "stereo_motorcycle")


def photographs(folder: Path, count: int) -> list[Path]:
    """Crops of photographs, of four fifths of their sides, drawn from a seed: files."""
    random = np.random.default_rng(SEED)
    paths = []
    for i in range(count):
        name = _PHOTOGRAPHS[i % len(_PHOTOGRAPHS)]
        pixels = getattr(skimage.data, name)()
        pixels = pixels[0] if isinstance(pixels, tuple) else pixels
        height, width = (4 * side // 5 for side in pixels.shape[:2])
        top = int(random.integers(pixels.shape[0] - height + 1))
        left = int(random.integers(pixels.shape[1] - width + 1))
        crop = Image.fromarray(pixels[top : top + height, left : left + width])
        paths.append(folder / f"{i:03d}-{name}.png")
        (crop if random.integers(2) else crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)).save(
            paths[-1]
        )
    return paths


def timed(call: Callable[[], float]) -> dict[str, float]:
    """A score, and how long it took."""
    begin = time.perf_counter()
    found = call()
    return {"score": found, "seconds": time.perf_counter() - begin}


def both(
    sample: Sample,
    samples: list[Sample],
    method: str,
    subject: Subject,
    of: peer.OfPixels,
    metrics: tuple[str, ...],
) -> Iterator[dict[str, Any]]:
    """Each score of an image by a method, by the graph and by PyTorch, one after the other."""
    pre = subject.preprocessing
    image, others = pixels_of(sample.path, pre), partners(sample, samples, SEED)
    tiles = Tiles(
        np.concatenate([pixels_of(other.path, pre) for other in others]),
        [other.target for other in others],
    )
    explained = Explained(subject, image, sample.target)
    temperature = _TEMPERATURE if method == "excitation" else None
    for metric in SEMANTIC_PULLBACKS.metrics:
        if metric.name not in metrics:
            continue
        seed = drawn(SEED, sample.digest, metric.name)
        shown = tiles if metric.on == MOSAIC else None
        given = (image, sample.target, shown, seed, subject.classes, temperature)
        row = {
            **{"image": sample.name, "method": method, "metric": metric.name},
            "graph": timed(partial(score, metric, explained, shown, seed)),
            "pytorch": timed(partial(peer.score, metric, of, method, *given)),
        }
        if apart(row, "graph", "pytorch") > AGREES:
            again = partial(peer.score, metric, of, method, *given)
            row["of_the_graphs_pullback"] = {"score": again(explain=subject.explain)}
            kernels = partial(peer.without_onednn, of, method=method, temperature=temperature)
            row["without_onednn"] = {"score": again(explain=kernels)}
        yield row


def apart(row: dict[str, Any], who: str, other: str) -> float:
    """By how much a score differs: infidelity is in squared logits and has no bound, so in parts
    of a score above 1."""
    right = row[other]["score"]
    return abs(row[who]["score"] - right) / max(1, abs(right))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The largest difference of a score, and how long both took, of all, by metric and by method.

    Pixels that two right pullbacks sort otherwise are disturbed in other steps. So scores that
    differ are made once more by PyTorch of the graph's pullback, and of its own that is computed
    by its other kernels, which tells how far it differs from itself.
    """

    def of(some: list[dict[str, Any]]) -> dict[str, Any]:
        same, kernels = "of_the_graphs_pullback", "without_onednn"
        itself = [apart(row, kernels, "pytorch") for row in some if kernels in row]
        ours, theirs = (sum(row[who]["seconds"] for row in some) for who in ("graph", "pytorch"))
        return {
            "scores": len(some),
            "largest_difference": max(apart(row, "graph", "pytorch") for row in some),
            "differ": sum(apart(row, "graph", "pytorch") > AGREES for row in some),
            "largest_difference_of_the_graphs_pullback": max(
                apart(row, "graph", same if same in row else "pytorch") for row in some
            ),
            "largest_difference_of_pytorchs_kernels": max(itself, default=0.0),
            "differ_by_pytorchs_kernels": sum(one > AGREES for one in itself),
            "graph_seconds": ours,
            "pytorch_seconds": theirs,
            "ratio": theirs / ours,
        }

    by = {
        f"{part}s": {
            name: of([row for row in rows if row[part] == name])
            for name in dict.fromkeys(row[part] for row in rows)
        }
        for part in ("metric", "method")
    }
    return {"images": len({row["image"] for row in rows}), **of(rows), **by}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="onnxplain.bench.evaluation", description=__doc__)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument(
        "--metrics", default=",".join(metric.name for metric in SEMANTIC_PULLBACKS.metrics)
    )
    parser.add_argument("--threads", type=int, help="of each; as many as each takes by itself")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    methods, metrics = given.methods.split(","), tuple(given.metrics.split(","))
    rows = json.loads(given.out.read_text())["rows"] if given.out.is_file() else []
    with scratch() as folder, progress_bar() as progress:
        task = progress.add_task("exporting", total=given.images * len(methods) * len(metrics))
        subjects = exported(methods, folder, given.threads)
        first = next(iter(subjects.values()))
        of = network_of_pixels(list(subjects.values()))
        samples = listed(photographs(folder, given.images), {}, first, None, SEED)
        done = {(row["image"], row["method"], row["metric"]) for row in rows}
        for sample, method in itertools.product(samples, methods):
            progress.update(task, description=f"{sample.name}, {method}")
            left = tuple(m for m in metrics if (sample.name, method, m) not in done)
            progress.advance(task, len(metrics) - len(left))
            for row in both(sample, samples, method, subjects[method], of, left):
                rows.append(row)
                progress.advance(task)
            kept = {"machine": machine(), "threads": given.threads, **summary(rows), "rows": rows}
            with replacing(given.out) as beside:
                beside.write_text(json.dumps(kept, indent=1) + "\n")


def exported(methods: Sequence[str], folder: Path, threads: int | None) -> dict[str, Subject]:
    """The network's explain graphs by method, opened."""
    subjects: dict[str, Subject] = {}
    forwards: dict[str, Logits] = {}
    for method in methods:
        path = folder / f"{method}.onnx"
        temperature = _TEMPERATURE if method == "excitation" else None
        onnxplain.export(_SOURCE, path, method=method, temperature=temperature)
        subjects[method] = opened(path, method, folder, "cpu", "float32", threads, forwards)
    return subjects


def network_of_pixels(subjects: Sequence[Subject]) -> peer.OfPixels:
    """PyTorch's network, with the layer that one of the methods is of."""
    network = torch_network(_SOURCE).module.eval()
    parameters = {k: v for s in subjects for k, v in s.explainer.metadata.parameters.items()}
    layer = network.get_submodule(str(parameters["layer"])) if "layer" in parameters else None
    pre = subjects[0].preprocessing
    return peer.OfPixels(network, pre.mean, pre.std, layer).eval()


if __name__ == "__main__":
    main()
