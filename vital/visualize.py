"""`onnxplain.visualize`: from a network and photographs to what its neurons look for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from onnxplain.contract import IMAGE, LOGITS, Preprocessing
from onnxplain.errors import InputError
from onnxplain.export.vital.stages import recipe_of
from onnxplain.export.vital.step import Subject, read_subject, write_features, write_step
from onnxplain.runtime.backends import PROVIDERS
from onnxplain.runtime.graphs import Graph, open_graph
from onnxplain.runtime.images import find_images
from onnxplain.runtime.onnx_file import digest, read_metadata
from onnxplain.runtime.targets import find_class
from onnxplain.steps import STEPS, StepMetadata
from onnxplain.vital.optimisation import Optimisation
from onnxplain.vital.references import Templates, find_templates, softmax
from onnxplain.vital.search import top_images
from onnxplain.vital.settings import Settings, with_recipe

_CHUNK = 10  # steps between reports
_FRAMES = 50
_SAVED_EVERY = 100  # steps


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


@dataclass(frozen=True, eq=False)
class Visualisation:
    """What N neurons look for.

    Attributes:
        pictures: uint8 [N, H, W, 3].
        alpha: how opaque each pixel is: the gradient's magnitude over the steps, as a rank from 0
            to 1, float32 [N, H, W].
        names: of the neurons.
        neurons: the classes, or the channels of `layer`.
        layer: None for classes.
        losses: of each step, float32 [T, N].
        probabilities: that the network gives each picture (its eight bits) the class, [N]; NaN for
            channels.
        references: the same for the reference images, on average.
        frames: pictures on the way, uint8 [F, N, H, W, 3].
        settings: with the weights and priors used.
        layers: the matched ones.
    """

    pictures: NDArray[np.uint8]
    alpha: NDArray[np.float32]
    names: tuple[str, ...]
    neurons: tuple[int, ...]
    layer: str | None
    losses: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    references: NDArray[np.float64]
    frames: NDArray[np.uint8]
    settings: Settings
    layers: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pictures)

    def image(self, index: int = 0, transparent: bool = False) -> Image.Image:
        """A picture; where `transparent`, with what the optimisation left alone faded out."""
        picture = Image.fromarray(self.pictures[index])
        if transparent:
            picture.putalpha(Image.fromarray(np.rint(255 * self.alpha[index]).astype(np.uint8)))
        return picture


def visualize(
    source: Any,
    *,
    target: int | str | Sequence[int | str] | None = None,
    layer: str | None = None,
    channel: int | Sequence[int] | None = None,
    references: str | os.PathLike[str] | None = None,
    layers: Sequence[str] = (),
    settings: Settings | None = None,
    start_size: int | None = None,
    start_steps: int = 500,
    weights: str = "DEFAULT",
    example: Any = None,
    size: int | tuple[int, int] | None = None,
    provider: str = "auto",
    threads: int | None = None,
    precision: str = "float32",
    unfinished: str | os.PathLike[str] | None = None,
    step_graph: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Visualisation:
    """Make a picture of what classes, or channels of an inner layer, look for.

    VITAL (Görgün et al., arXiv 2503.22399): a picture whose activations at several layers are
    distributed as those of real images. Each step of the optimisation is one run of one graph.

    Args:
        source: a network as for `onnxplain.export`.
        target: classes, indices or names.
        layer, channel: instead of a target, channels of an inner layer.
        references: a folder of photographs: of the class; for several, a folder of each within it,
            named by the class's index or name; for a channel, any (those that excite it most are
            chosen). Where there are fewer than `settings.references`, random crops make up for it.
        layers: those to match, from the image on; the paper's, or picked, where none are given.
        settings: see `Settings`.
        start_size: begin with a picture of so many pixels a side, for `start_steps` steps.
        weights, example, size: of the network, as for `onnxplain.export`.
        provider, threads, precision: of `onnxplain.runtime.graphs.open_graph`.
        unfinished: the file to keep the state in; where it is there, the optimisation goes on from
            it, to the same picture. It is deleted at the end.
        step_graph: where to keep the step's ONNX file too.
        progress: called now and then.

    Raises:
        SourceError: the network cannot be read; no such layer.
        InputError: a class or channel that is not there; no references; a setting that cannot be;
            `unfinished` belongs to another optimisation.
        BackendError: the runtime failed, or is not here.
    """
    chosen = (settings or Settings()).checked()
    if (target is None) == (channel is None) or (channel is None) != (layer is None):
        raise InputError("give a target, or a layer and a channel of it")
    wanted = target if layer is None else channel
    several = [wanted] if isinstance(wanted, int | str) else list(wanted or ())
    if not several:
        raise InputError("no neuron to visualise")
    folder = None if references is None else Path(references)
    if folder is None and chosen.objective == "vital":
        raise InputError("no reference images; give a folder of photographs with --references")
    named = layers or _recipe_layers(source)
    full = (size, size) if isinstance(size, int) else size
    phases = [(full, chosen)]
    if start_size is not None:
        small = replace(chosen, steps=start_steps).checked()
        phases.insert(0, ((start_size, start_size), small))

    if start_size is not None and chosen.fourier:
        raise InputError("a start of another size is for pixels, not for a spectrum")

    start: NDArray[np.uint8] | None = None
    state = None if unfinished is None else Path(unfinished)
    engine = _Engine(provider, threads, precision)
    with tempfile.TemporaryDirectory() as scratch:
        for sizes, part in phases:
            last = part is chosen
            progress(Progress("reading the network", 0, 1))
            subject = read_subject(
                source, weights=weights, example=example, size=sizes, layers=named, neuron=layer
            )
            neurons = find_neurons(subject, several)
            task = _Task(subject, part, neurons, engine, Path(scratch), progress)
            templates = task.templates(folder)
            kept = Path(step_graph) if last and step_graph is not None else None
            run = task.optimisation(templates, start, kept)
            own = state if last or state is None else state.with_name(f"{state.name}.start")
            _optimise(run, own, progress)
            start = run.pictures
        result = task.result(run, templates)
    if state is not None:
        for file in (state, state.with_name(f"{state.name}.start")):
            file.unlink(missing_ok=True)
    return result


def find_neurons(subject: Subject, wanted: Sequence[int | str]) -> tuple[int, ...]:
    """Indices of classes, or of channels of the subject's neuron's layer.

    Raises:
        InputError: no such class, or a number out of range.
    """
    count = subject.neurons()
    found = []
    for neuron in wanted:
        index = find_class(neuron, subject.source.labels) if isinstance(neuron, str) else neuron
        if not 0 <= index < count:
            what = "classes" if subject.neuron is None else f"channels of '{subject.neuron[1]}'"
            raise InputError(f"{index} is out of range: there are {count} {what}, from 0 on")
        found.append(index)
    return tuple(found)


def reference_folders(
    folder: Path, neurons: Sequence[int], labels: Sequence[str]
) -> list[list[Path]]:
    """The photographs of each class: the folder's, or of the folder within it of that name.

    Raises:
        InputError: no image, or no folder for one of several classes.
    """
    if not folder.is_dir():
        raise InputError(f"no such folder of reference images: '{folder}'")
    found = []
    for index in neurons:
        names = {str(index), labels[index].casefold() if labels else str(index)}
        own = [d for d in folder.iterdir() if d.is_dir() and d.name.casefold() in names]
        if not own and len(neurons) > 1:
            label = f" or '{labels[index]}'" if labels else ""
            raise InputError(
                f"for several classes, '{folder}' holds a folder of each: there is none named "
                f"'{index}'{label}"
            )
        found.append(find_images(own[0] if own else folder))
    return found


@dataclass(frozen=True)
class _Engine:
    provider: str
    threads: int | None
    precision: str

    def open(self, path: Path, **sizes: int) -> Graph:
        return open_graph(path, self.provider, self.threads, self.precision, sizes)

    def fastest(self) -> _Engine | None:
        """What "auto" should try before `open_graph`'s own choice, if it agrees with that."""
        here = [name for name in ("cuda", "openvino") if PROVIDERS[name].missing() is None]
        auto = self.provider == "auto" and here[:1] == ["openvino"]
        return replace(self, provider="openvino") if auto else None


@dataclass
class _Task:
    """What one phase's graphs are made of, and made for."""

    subject: Subject
    settings: Settings
    neurons: tuple[int, ...]
    engine: _Engine
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

        def on(engine: _Engine) -> Optimisation:
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


def _optimise(run: Optimisation, state: Path | None, progress: Callable[[Progress], None]) -> None:
    """To the end, from `state` if it is there; kept there now and then, and when interrupted."""
    steps = run.settings.steps
    between = max(steps // _FRAMES, 1)
    if state is not None and state.exists():
        run.resume(state)
    saved = run.done
    try:
        while run.done < steps:
            run.advance(min(_CHUNK, between - run.done % between))
            if run.done % between == 0 or run.done == steps:
                run.keep_frame()
            loss = float(run.losses[-1].mean())
            progress(Progress("optimising", run.done, steps, loss, run.pictures))
            if state is not None and run.done - saved >= _SAVED_EVERY:
                run.save(state)
                saved = run.done
    finally:
        if state is not None and run.done > saved:
            run.save(state)


def opacity(magnitude: NDArray[np.float32]) -> NDArray[np.float32]:
    """Magnitudes [N, H, W], smoothed, from 0 to 1: opaque from the 90th percentile on."""
    maps = []
    for own in magnitude:
        level = np.minimum(own / max(np.percentile(own, 90), np.finfo(np.float32).tiny), 1)
        grey = Image.fromarray(np.rint(255 * level).astype(np.uint8))
        maps.append(np.asarray(grey.filter(ImageFilter.GaussianBlur(own.shape[0] / 64))))
    return (np.stack(maps) / 255).astype(np.float32)


def normalised(picture: NDArray[np.uint8], pre: Preprocessing) -> NDArray[np.float32]:
    """Pixels [H, W, 3] of the network's own size as its input, without a resize or crop."""
    grey = pre.channels == 1
    pixels = np.asarray(Image.fromarray(picture).convert("L"))[..., None] if grey else picture
    x = (pixels / 255 - np.array(pre.mean)) / np.array(pre.std)
    return (x if pre.layout == "NHWC" else np.moveaxis(x, -1, 0)).astype(np.float32)


def _recipe_layers(source: Any) -> Sequence[str]:
    recipe = recipe_of(source) if isinstance(source, str) else None
    return () if recipe is None else recipe.layers
