"""One phase of a visualisation: its graphs, its references, its optimisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract import IMAGE, LOGITS, Preprocessing
from onnxplain.errors import InputError
from onnxplain.export.vital.step import Subject, write_features, write_step
from onnxplain.runtime.backends import PROVIDERS
from onnxplain.runtime.graphs import Graph, open_graph
from onnxplain.runtime.onnx_file import digest, read_metadata
from onnxplain.steps import STEPS, StepMetadata
from onnxplain.vital.optimisation import Optimisation
from onnxplain.vital.references import Templates, find_templates, reference_folders, softmax
from onnxplain.vital.search import top_images
from onnxplain.vital.settings import Settings, with_recipe
from onnxplain.vital.visualisation import Visualisation, opacity


@dataclass(frozen=True)
class Progress:
    """How far a visualisation is: of `stage`, `done` of `total`.

    While it optimises, with the mean loss of the last step and the pictures, uint8 [N, H, W, 3].
    """

    stage: str
    done: int
    total: int
    loss: float | None = None
    pictures: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Engine:
    """What runs the graphs, as for `onnxplain.runtime.graphs.open_graph`."""

    provider: str
    threads: int | None
    precision: str

    def open(self, path: Path, **sizes: int) -> Graph:
        return open_graph(path, self.provider, self.threads, self.precision, sizes)

    def fastest(self) -> Engine | None:
        """What "auto" should try before `open_graph`'s own choice, if it agrees with that."""
        here = [name for name in ("cuda", "openvino") if PROVIDERS[name].missing() is None]
        auto = self.provider == "auto" and here[:1] == ["openvino"]
        return replace(self, provider="openvino") if auto else None


@dataclass
class Task:
    """What one phase's graphs are made of, and made for."""

    subject: Subject
    settings: Settings
    neurons: tuple[int, ...]
    engine: Engine
    scratch: Path
    progress: Callable[[Progress], None]

    def __post_init__(self) -> None:
        name, inner = self.subject.source.name, self.subject.neuron is not None
        self.settings = with_recipe(self.settings, name, len(self.subject.layers), inner)
        path = self.scratch / "features.onnx"
        self.progress(Progress("compiling", 0, 2))
        write_features(self.subject, path, self.settings.relevance)
        self.features = self.engine.open(path)

    def templates(self, folder: Path | None) -> list[Templates]:
        if self.settings.objective != "vital" or folder is None:
            return []
        subject, count = self.subject, self.settings.references
        if subject.neuron is None:
            photographs = reference_folders(folder, self.neurons, subject.source.labels)
        else:
            photographs = self._most_exciting(folder)
        layers = StepMetadata.from_props(self.features.metadata).layers
        total = len(self.neurons) * count
        found = []
        for number, (neuron, own) in enumerate(zip(self.neurons, photographs, strict=True)):

            def report(done: int, before: int = number * count) -> None:
                self.progress(Progress("references", before + done, total))

            found.append(
                find_templates(
                    self.features,
                    layers,
                    subject.pre,
                    own,
                    count,
                    self.settings.seed,
                    target=neuron if subject.neuron is None else None,
                    channel=None if subject.neuron is None else neuron,
                    progress=report,
                )
            )
        return found

    def _most_exciting(self, folder: Path) -> list[list[Path]]:
        count = self.settings.references
        if not folder.is_dir():
            raise InputError(f"no such folder of reference images: '{folder}'")
        search = top_images(
            self.subject,
            folder,
            k=count,
            provider=self.engine.provider,
            progress=lambda done, images: self.progress(Progress("searching", done, images)),
        )
        return [search.best(channel) for channel in self.neurons]

    def optimisation(
        self, templates: Sequence[Templates], start: NDArray[np.uint8] | None, kept: Path | None
    ) -> Optimisation:
        self.progress(Progress("compiling", 1, 2))
        path = self.scratch / "step.onnx" if kept is None else kept
        write_step(
            self.subject,
            path,
            objective="distribution" if self.settings.objective == "vital" else "activation",
            how=self.settings.relevance,
            fourier=self.settings.fourier,
        )
        batch = StepMetadata.from_props(read_metadata(path)).batch
        sizes = {STEPS: self.settings.steps}
        if isinstance(batch, str):
            sizes[batch] = len(self.neurons)
        elif batch != len(self.neurons):
            raise InputError(
                f"this network takes batches of {batch} alone: visualise {batch} at a time"
            )
        pre = self.subject.pre
        first = None
        if start is not None:
            pictures = [Image.fromarray(p).resize((pre.width, pre.height)) for p in start]
            first = np.stack([normalised(np.asarray(p), pre) for p in pictures])

        def on(engine: Engine) -> Optimisation:
            graph = engine.open(path, **sizes)
            return Optimisation(
                graph, self.settings, self.neurons, templates, first, identity=digest(path)
            )

        fastest = self.engine.fastest()
        if fastest is None:
            return on(self.engine)
        checked = on(replace(self.engine, provider="cpu"))
        quick = on(fastest)
        return quick if quick.agrees_with(checked) else checked

    def report(self, run: Optimisation) -> None:
        """Say how far an optimisation is."""
        loss = float(run.losses[-1].mean())
        self.progress(Progress("optimising", run.done, run.settings.steps, loss, run.pictures))

    def result(self, run: Optimisation, templates: Sequence[Templates]) -> Visualisation:
        pre, neuron = self.subject.pre, self.subject.neuron
        labels = self.subject.source.labels
        if neuron is None:
            names = [labels[i] if labels else f"class {i}" for i in self.neurons]
            batch = np.stack([normalised(picture, pre) for picture in run.pictures])
            logits = np.concatenate(
                [self.features.run({IMAGE: image[None]})[LOGITS] for image in batch]
            )
            shares = softmax(logits)[np.arange(len(batch)), list(self.neurons)]
        else:
            names = [f"{neuron[1]} channel {i}" for i in self.neurons]
            shares = np.full(len(names), np.nan)
        return Visualisation(
            run.pictures,
            opacity(run.magnitude),
            tuple(names),
            self.neurons,
            None if neuron is None else neuron[1],
            run.losses,
            shares,
            np.array([t.probability for t in templates]),
            np.stack(run.frames),
            self.settings,
            tuple(self.subject.layers.values()),
        )


def normalised(picture: NDArray[np.uint8], pre: Preprocessing) -> NDArray[np.float32]:
    """Pixels [H, W, 3] of the network's own size as its input, without a resize or crop."""
    grey = pre.channels == 1
    pixels = np.asarray(Image.fromarray(picture).convert("L"))[..., None] if grey else picture
    x = (pixels / 255 - np.array(pre.mean)) / np.array(pre.std)
    return (x if pre.layout == "NHWC" else np.moveaxis(x, -1, 0)).astype(np.float32)
