"""One phase of a visualisation, at one size: its graphs, its references, its optimisation."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxplain.contract.explain import Preprocessing
from onnxplain.contract.steps import STEPS, StepMetadata
from onnxplain.errors import BackendError, InputError
from onnxplain.files import replacing
from onnxplain.runtime.inputs.batches import preprocess
from onnxplain.runtime.onnx_file import digest, read_metadata
from onnxplain.runtime.sessions import Session
from onnxplain.vital.engine import Engine
from onnxplain.vital.features import Features, fitting
from onnxplain.vital.graphs.adam import BETAS
from onnxplain.vital.graphs.features import write_features
from onnxplain.vital.graphs.patches import SIDE
from onnxplain.vital.graphs.step import write_step
from onnxplain.vital.graphs.subject import Subject
from onnxplain.vital.optimisation import Optimisation, optimise
from onnxplain.vital.references import (
    Templates,
    find_templates,
    in_colour,
    reference_folders,
    some_of,
)
from onnxplain.vital.result import Visualisation, opacity
from onnxplain.vital.search.image_files import walk
from onnxplain.vital.search.run import top_images
from onnxplain.vital.settings import Settings, Start, with_recipe
from onnxplain.vital.state import Kept, search


@dataclass(frozen=True)
class Progress:
    """How far a visualisation has come: `done` of `total` in `stage`.

    While it optimises, also the mean loss of the last step and the pictures, uint8 [N, H, W, 3].
    """

    stage: str
    done: int
    total: int
    loss: float | None = None
    pictures: NDArray[np.uint8] | None = None


class Seen(NamedTuple):
    """What a phase comes to, and its pictures before they were rounded, as the network's input."""

    visualisation: Visualisation
    batch: NDArray[np.float32]


@dataclass
class Phase:
    """What one phase's graphs are made from, and what for.

    Attributes:
        subject: the network, at this phase's size.
        settings: this phase's; the recipe's weights and priors are filled in.
        neurons: the classes, or the channels.
        engine: what runs the graphs.
        references: their folder; None where none are needed.
        begun: what the visualisation begins with, if not with this phase: its state cannot be
            resumed with a different one.
        state: the file to save the state to, if any.
        scratch: a folder for the graphs.
        progress: called from time to time.

    Raises:
        InputError: weights for a different number of layers.
    """

    subject: Subject
    settings: Settings
    neurons: tuple[int, ...]
    engine: Engine
    references: Path | None
    begun: Start | None
    state: Path | None
    scratch: Path
    progress: Callable[[Progress], None]

    def __post_init__(self) -> None:
        self.subject = subject = replace(self.subject, pre=self._as_references())
        names, inner = tuple(subject.layers.values()), subject.neuron is not None
        self.settings = with_recipe(self.settings, subject.source.name, names, inner)

    def _as_references(self) -> Preprocessing:
        """How the references become the network's input: VITAL takes 224 of 256 pixels."""
        pre = self.subject.pre
        resize = self.settings.resize or round(min(pre.height, pre.width) * 256 / 224)
        return replace(pre, resize=resize, interpolation="bilinear")

    @cached_property
    def features(self) -> Session:
        """The graph that references, and the finished pictures of classes, run through."""
        path = self.scratch / "features.onnx"
        write_features(self.subject, path, self.settings.flow)
        return self.engine.open(path, {})

    def run(self, first: NDArray[np.float32] | None, kept: Path | None) -> Seen:
        """Run the phase, or what the state file leaves of it.

        Args:
            first: pictures to start from, as the network's input; None for noise.
            kept: where to keep the step graph, and with the suffix .npz all its inputs.

        Raises:
            InputError: no references; a state of another optimisation; the loss diverged.
            BackendError: the runtime failed, or is missing.
        """
        self.progress(Progress("compiling", 0, 2))
        path = self.scratch / "step.onnx" if kept is None else kept
        write_step(
            self.subject,
            path,
            objective="distribution" if self.settings.objective == "vital" else "activation",
            flow=self.settings.flow,
            together=self.settings.together,
            fourier=self.settings.fourier,
            betas=self.settings.betas or BETAS,
            clip=self.settings.clip,
        )
        self.progress(Progress("compiling", 1, 2))
        photographs = self._photographs()
        fingerprint = self._fingerprint(path, photographs)
        if self.state is not None and self.state.exists():
            before = Kept.load(self.state, fingerprint)
            templates: Sequence[Templates] = before.templates
            engine = self.engine.going_on(before.provider)
            run = self._opened(engine, path, templates, first, fingerprint)
            run.resume(before.moment)
        else:
            templates = self._templates(photographs)
            run = self._opened(self.engine, path, templates, first, fingerprint)
        if kept is not None:
            with replacing(kept.with_suffix(".npz")) as beside:
                inputs: dict[str, Any] = run.inputs
                np.savez(beside, **inputs)
        self.progress(Progress("compiling", 2, 2))
        optimise(run, self.state, self._report)
        return Seen(self._result(run, templates), run.batch)

    def _photographs(self) -> Sequence[list[Path]]:
        """The photographs of each class; for an inner neuron, those to search, in colour."""
        if self.references is None:
            return []
        if self.subject.neuron is None:
            return reference_folders(self.references, self.neurons, self.subject.source.labels)
        if not self.references.is_dir():
            what = "is a file; name its folder" if self.references.is_file() else "is no folder"
            raise InputError(f"the reference images' '{self.references}' {what}")
        found = map(Path, walk([str(self.references)]))
        once = {file.resolve(): file for file in found if file.exists()}
        return [in_colour([*once.values()])]

    def _fingerprint(self, step: Path, photographs: Sequence[list[Path]]) -> str:
        """A digest of all that decides what the steps do, apart from what depends on rounding."""
        engine = self.engine
        known = hashlib.sha256(
            repr(
                (digest(step), self.settings, self.neurons, self.begun, engine.provider,
                 engine.precision)
            ).encode()
        )  # fmt: skip
        for number, own in enumerate(photographs):
            for file in own:
                name = os.path.relpath(file, self.references)
                size = file.stat().st_size if file.exists() else 0
                known.update(f"{number} {name!r} {size}\n".encode())
        return known.hexdigest()

    def _templates(self, photographs: Sequence[list[Path]]) -> list[Templates]:
        if self.references is None:
            return []
        subject, count = self.subject, self.settings.references
        choose = self._chosen if subject.neuron is None else self._most_exciting
        each = choose(photographs)
        layers = StepMetadata.from_props(self.features.metadata).layers
        total = len(self.neurons) * count
        found = []
        for number, (neuron, own) in enumerate(zip(self.neurons, each, strict=True)):

            def report(done: int, views: int, before: int = number * count) -> None:
                self.progress(Progress("references", before + done * count // views, total))

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

    def _chosen(self, photographs: Sequence[list[Path]]) -> list[list[Path]]:
        """As many of each class as there are views."""
        settings = self.settings
        return [some_of(own, settings.references, settings.seed) for own in photographs]

    def _most_exciting(self, photographs: Sequence[list[Path]]) -> list[list[Path]]:
        """Of those that are searched, as many for each channel as there are views."""
        (searched,) = photographs
        pre, sliding = self.subject.pre, self.settings.ranking == "patches"
        table = top_images(
            self.subject,
            searched,
            k=self.settings.references,
            by="mean" if sliding else self.settings.ranking,
            patch=round(SIDE * min(pre.height, pre.width)) if sliding else None,
            path=None if self.state is None else search(self.state),
            provider=self.engine.provider,
            progress=lambda done, images: self.progress(Progress("searching", done, images)),
        )
        return [table.best(channel) for channel in self.neurons]

    def _opened(
        self,
        engine: Engine,
        path: Path,
        templates: Sequence[Templates],
        first: NDArray[np.float32] | None,
        fingerprint: str,
    ) -> Optimisation:
        """Ready for its first step. "auto" takes a faster provider if its gradient is the same."""
        sizes = {STEPS: self.settings.steps}
        batch = StepMetadata.from_props(read_metadata(path)).batch
        if isinstance(batch, str):
            sizes[batch] = len(self.neurons) * self.settings.together

        def on(engine: Engine) -> Optimisation:
            graph = engine.open(path, sizes)
            return Optimisation(graph, self.settings, self.neurons, templates, first, fingerprint)

        fastest = engine.fastest()
        if fastest is None:
            return on(engine)
        checked = on(replace(engine, provider="cpu"))
        try:
            quick = on(fastest)
            return quick if quick.agrees_with(checked) else checked
        except BackendError:  # "auto" promises no provider
            return checked

    def _report(self, run: Optimisation) -> None:
        loss = float(run.losses[-1].mean())
        self.progress(Progress("optimising", run.done, run.settings.steps, loss, run.pictures))

    def _result(self, run: Optimisation, templates: Sequence[Templates]) -> Visualisation:
        neuron, labels = self.subject.neuron, self.subject.source.labels
        together = self.settings.together
        neurons = tuple(i for i in self.neurons for _ in range(together))
        if neuron is None:
            names = [labels[i] if labels else f"class {i}" for i in neurons]
            if together > 1:
                names = [f"{name}, {1 + i % together}" for i, name in enumerate(names)]
            features = Features(self.features)
            shown = features.runs(self.input_of(picture) for picture in run.pictures)
            shares = np.concatenate([features.probabilities(outputs) for outputs in shown])
            own = shares[np.arange(len(shares)), list(neurons)]
        else:
            names = [f"{neuron[1]} channel {i}" for i in neurons]
            own = np.full(len(names), np.nan)
        return Visualisation(
            run.pictures,
            opacity(run.magnitude, self.settings.transparency),
            tuple(names),
            neurons,
            None if neuron is None else neuron[1],
            run.losses,
            own,
            np.array([t.probability for t in templates for _ in range(together)]),
            np.stack(run.frames),
            self.settings,
            tuple(self.subject.layers.values()),
            run.graph.provider,
        )

    def input_of(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixels [H, W, 3] resized to fill the whole of the network's input."""
        pre = self.subject.pre
        whole = Image.fromarray(picture).resize((pre.width, pre.height))
        return preprocess(whole, fitting(pre))
