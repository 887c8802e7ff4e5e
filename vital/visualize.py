"""`onnxplain.visualize`: from a network and photographs to what its neurons look for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import InputError
from onnxplain.export.vital.stages import recipe_of
from onnxplain.export.vital.step import Subject, read_subject
from onnxplain.runtime.targets import find_class
from onnxplain.vital.optimisation import optimise
from onnxplain.vital.settings import Settings
from onnxplain.vital.task import Engine, Progress, Task
from onnxplain.vital.visualisation import Visualisation


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
    state: str | os.PathLike[str] | None = None,
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
        state: the file to keep the optimisation's state in. Where it is there, the optimisation
            goes on from it, to the same picture; at its end it stays, and the next call returns
            that at once. Of a start of another size, a file beside it, ending in ".start".
        step_graph: where to keep the step's ONNX file too.
        progress: called now and then.

    Raises:
        SourceError: the network cannot be read; no such layer.
        InputError: a class or channel that is not there; no references; a setting that cannot be;
            `state` belongs to another optimisation.
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
    path = None if state is None else Path(state)
    engine = Engine(provider, threads, precision)
    with tempfile.TemporaryDirectory() as scratch:
        for sizes, part in phases:
            last = part is chosen
            progress(Progress("reading the network", 0, 1))
            subject = read_subject(
                source, weights=weights, example=example, size=sizes, layers=named, neuron=layer
            )
            neurons = find_neurons(subject, several)
            task = Task(subject, part, neurons, engine, Path(scratch), progress)
            templates = task.templates(folder)
            kept = Path(step_graph) if last and step_graph is not None else None
            run = task.optimisation(templates, start, kept)
            own = path if last or path is None else path.with_name(f"{path.name}.start")
            optimise(run, own, task.report)
            start = run.pictures
        return task.result(run, templates)


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


def _recipe_layers(source: Any) -> Sequence[str]:
    recipe = recipe_of(source) if isinstance(source, str) else None
    return () if recipe is None else recipe.layers
