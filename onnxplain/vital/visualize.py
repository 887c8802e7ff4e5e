"""`onnxplain.visualize`: from a network and photographs to what its neurons look for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import InputError
from onnxplain.export.finish import writable
from onnxplain.export.tensors import dims
from onnxplain.runtime.inputs.targets import find_class
from onnxplain.vital.engine import Engine
from onnxplain.vital.graphs.subject import Subject, read_subject
from onnxplain.vital.phase import Phase, Progress
from onnxplain.vital.result import Visualisation
from onnxplain.vital.settings import Settings
from onnxplain.vital.state import beginning


def visualize(
    source: Any,
    *,
    target: int | str | Sequence[int | str] | NDArray[np.integer[Any]] | None = None,
    layer: str | None = None,
    channel: int | Sequence[int] | NDArray[np.integer[Any]] | None = None,
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
        references: a folder of photographs: of the class, or with folders of classes within, named
            by index or name (those of one class are taken together); for a channel, any (those that
            excite it most are chosen). Where there are fewer than `settings.references`, random
            crops make up for it.
        layers: those to match, from the image on; the paper's, or picked, where none are given.
        settings: see `Settings`.
        start_size: begin with a picture of so many pixels a side, for `start_steps` steps.
        weights, example, size: of the network, as for `onnxplain.export`.
        provider, threads, precision: of `onnxplain.runtime.sessions.open_session`.
        state: the file to keep the optimisation's state in. Where it is there, the optimisation
            goes on from it, to the same picture; at its end it stays, and the next call returns
            that at once. Beside it, `onnxplain.vital.state.files` names others: the state of a
            start of another size, and the table of a channel's search.
        step_graph: where to keep the step's ONNX file too, and beside it, ending in .npz, what it
            is fed first.
        progress: called now and then.

    Raises:
        SourceError: the network cannot be read; no such layer.
        InputError: a class or channel that is not there, or is given twice; no references; a
            setting that cannot be; `state` belongs to another optimisation; it or `step_graph`
            cannot be written; the loss is no longer a number.
        BackendError: the runtime failed, or is not here.
    """
    chosen = (settings or Settings()).checked()
    wanted = _wanted(target, layer, channel)
    folder = _needed(references, chosen)
    if start_size is not None and chosen.fourier:
        raise InputError("a start of another size is for pixels, not for a spectrum")
    begun = None if start_size is None else (start_size, start_steps)
    path = None if state is None else writable(state, source)
    kept = None if step_graph is None else writable(step_graph, source)

    start: NDArray[np.uint8] | None = None
    engine = Engine(provider, threads, precision)
    with tempfile.TemporaryDirectory(prefix="onnxplain-") as scratch:
        for plan in _plans(chosen, size, begun, path, kept):
            progress(Progress("reading the network", 0, 1))
            subject = read_subject(
                source,
                weights=weights,
                example=example,
                size=plan.size,
                layers=layers,
                neuron=layer,
            )
            seen = Phase(
                subject=subject,
                settings=plan.settings,
                neurons=find_neurons(subject, wanted),
                engine=engine,
                references=folder,
                begun=begun,
                state=plan.state,
                scratch=Path(scratch),
                progress=progress,
            ).run(start, plan.step_graph)
            start = seen.pictures
        return seen


class _Plan(NamedTuple):
    """What differs between the phases: a start of another size, and the rest."""

    size: tuple[int, int] | None
    settings: Settings
    state: Path | None
    step_graph: Path | None


def _plans(
    settings: Settings,
    size: int | tuple[int, int] | None,
    begun: tuple[int, int] | None,
    state: Path | None,
    step_graph: Path | None,
) -> list[_Plan]:
    whole = _Plan((size, size) if isinstance(size, int) else size, settings, state, step_graph)
    if begun is None:
        return [whole]
    pixels, steps = begun
    before = None if state is None else beginning(state)
    return [_Plan((pixels, pixels), replace(settings, steps=steps).checked(), before, None), whole]


def _wanted(target: Any, layer: str | None, channel: Any) -> Sequence[Any]:
    """The classes or channels, as they were given."""
    if (target is None) == (channel is None) or (channel is None) != (layer is None):
        raise InputError("give a target, or a layer and a channel of it")
    return _several(target if layer is None else channel)


def _needed(references: str | os.PathLike[str] | None, settings: Settings) -> Path | None:
    """The folder of references, where the objective needs one."""
    if settings.objective != "vital":
        return None
    if references is None:
        raise InputError("no reference images; give a folder of photographs with --references")
    return Path(references)


def find_neurons(subject: Subject, wanted: Sequence[Any]) -> tuple[int, ...]:
    """Indices of classes, or of channels of the subject's neuron's layer.

    Raises:
        InputError: no such class, or a number out of range; the same twice; not as many as a
            network with a fixed batch takes.
    """
    count = subject.neurons()
    found: list[int] = []
    for neuron in wanted:
        index = find_class(neuron, subject.source.labels) if isinstance(neuron, str) else neuron
        if isinstance(index, bool) or not isinstance(index, int):
            raise InputError(f"a class is an index or a name, a channel an index, not {neuron!r}")
        if not 0 <= index < count:
            what = "classes" if subject.neuron is None else f"channels of '{subject.neuron[1]}'"
            raise InputError(f"{index} is out of range: there are {count} {what}, from 0 on")
        if index in found:
            raise InputError(f"{index} is given twice; its picture would be the same")
        found.append(index)
    batch = dims(subject.model.graph.inputs[0])[0]
    if isinstance(batch, int) and batch != len(found):
        raise InputError(
            f"this network takes batches of {batch} alone: visualise {batch} at a time"
        )
    return tuple(found)


def _several(wanted: Any) -> Sequence[Any]:
    """Neurons, be it one, some, or an array of them, with Python's integers."""
    if isinstance(wanted, np.ndarray | np.generic):
        wanted = wanted.tolist()
    several = wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
    if not several:
        raise InputError("no neuron to visualise")
    return [one.item() if isinstance(one, np.integer) else one for one in several]
