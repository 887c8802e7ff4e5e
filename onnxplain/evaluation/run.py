"""An evaluation: every metric of every image's explanation by every graph."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnxplain.contract.precision import precision_named
from onnxplain.errors import InputError
from onnxplain.evaluation.protocols import SEMANTIC_PULLBACKS, metrics_of, protocol_of
from onnxplain.files import scratch
from onnxplain.runtime import find_images
from onnxplain.runtime.sessions import check_provider

if TYPE_CHECKING:
    from onnxplain.evaluation.result import Evaluation
    from onnxplain.evaluation.store import Score
    from onnxplain.evaluation.subject import Logits

QUICK = 10
"""The images of a quick evaluation."""

Graphs = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Images = Graphs


def evaluate(
    graphs: Graphs,
    images: Images,
    *,
    labels: Mapping[str, str] | None = None,
    masks: str | os.PathLike[str] | None = None,
    metrics: Sequence[str] | None = None,
    protocol: str = SEMANTIC_PULLBACKS.name,
    out: str | os.PathLike[str] | None = None,
    count: int | None = None,
    quick: bool = False,
    seed: int | None = None,
    provider: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Evaluation:
    """Measure explain graphs of classifiers on the same images.

    Scores depend on nothing but graph, image, class and seed: not on the order, on other images
    (but for mosaics, which are made of them), or on where an earlier run was interrupted.

    Args:
        graphs: explain graphs, one or several: methods, temperatures, precisions.
        images: files, folders and glob patterns.
        labels: each image's class, an index or a name, by the last parts of its path; of others
            it is the class that the first graph predicts.
        masks: a folder of images called as these, but for the suffix, light where the thing of the
            class is: for the metrics that ask where an explanation lies.
        metrics: by name (`onnxplain.evaluation.METRICS`); None for the protocol's.
        protocol: one of `onnxplain.evaluation.PROTOCOLS`.
        out: a folder for the scores, where a run with the same arguments goes on; None for none.
        count: so many images, drawn by the seed; None for as many as the protocol asks for.
        quick: ten images, and no metric that takes long, unless other ones are asked for.
        seed: None for the protocol's.
        provider, precision, threads: as for `onnxplain.load`.
        progress: called with how many of all scores are there.

    Raises:
        InputError: a graph, image, label or name that cannot be used; `out` cannot be written.
        BackendError: there is no such provider or precision, or a graph cannot be opened or run.
        ModuleNotFoundError: Quantus or PyArrow is not installed.
    """
    chosen = protocol_of(protocol)
    asked = metrics_of(None if metrics is None else list(metrics), chosen, quick)
    check_provider(provider)
    precision_named(precision)
    seed = chosen.seed if seed is None else seed
    count = count or (QUICK if quick else chosen.count)
    paths = find_images(images)
    files = [Path(graph) for graph in _several(graphs)]
    from onnxplain.evaluation.cells import cells  # which takes seconds
    from onnxplain.evaluation.images import listed
    from onnxplain.evaluation.page import pictures_of, write_page
    from onnxplain.evaluation.result import Evaluation
    from onnxplain.evaluation.store import PAGE, Store
    from onnxplain.evaluation.subject import check_alike, opened

    store = Store(None if out is None else Path(out))
    earlier = 0
    with scratch() as folder:
        forwards: dict[str, Logits] = {}
        subjects = [
            opened(file, name, folder, provider, precision, threads, forwards)
            for file, name in zip(files, _names(files), strict=True)
        ]
        check_alike(subjects)
        of_masks = None if masks is None else Path(masks)
        samples = listed(paths, labels or {}, subjects[0], count, seed, of_masks)
        scores: list[Score] = []
        total = len(samples) * len(subjects) * len(asked)
        try:
            for cell in cells(subjects, samples, asked, seed):
                known = store.known.get(cell.digest)
                earlier += known is not None
                if known is None:
                    known = cell.score()
                    store.add(known)
                scores.append(known)
                progress(len(scores), total)
        except BaseException:
            store.save()
            raise
        evaluation = Evaluation(
            tuple(subject.name for subject in subjects),
            asked,
            tuple(sample.name for sample in samples),
            tuple(scores),
            seed,
            earlier,
        )
        store.finish(evaluation.scores, evaluation.to_json())
        if store.folder is not None:
            write_page(evaluation, pictures_of(subjects, samples), store.folder / PAGE)
    return evaluation


def _several(graphs: Graphs) -> Sequence[str | os.PathLike[str]]:
    several = [graphs] if isinstance(graphs, (str, os.PathLike)) else list(graphs)
    if not several:
        raise InputError("no explain graph given")
    return several


def _names(files: Sequence[Path]) -> list[str]:
    """Short, each once: the file's name, or as much of its path as tells it from the others."""
    if len({file.resolve() for file in files}) < len(files):
        raise InputError("an explain graph is given twice")
    parts = [Path(os.path.abspath(file)).parts for file in files]
    for n in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-n:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return [name.removesuffix(".onnx").removesuffix(".explain") for name in names]
