"""`onnxplain.visualize`: from a network and photographs to what its neurons look for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.asking import check_source
from onnxplain.errors import InputError
from onnxplain.files import writable
from onnxplain.options import also_called, declared
from onnxplain.vital.engine import Engine
from onnxplain.vital.references import check_folder
from onnxplain.vital.settings import Settings, Start

if TYPE_CHECKING:
    from onnxplain.vital.phase import Progress
    from onnxplain.vital.result import Visualisation

_START_STEPS = 500


@also_called(targets="target")
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
    start_steps: int | None = None,
    start_pooled: bool = False,
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

    VITAL (Görgün et al., arXiv 2503.22399) finds a picture whose activations at several layers are
    distributed like those of real images. Each step of the optimisation is one run of one graph.

    Args:
        source: a network as for `onnxplain.export`.
        target: classes, by index or name.
        layer, channel: instead of a target, channels of an inner layer.
        references: a folder of photographs of the class, or of folders named for their class by
            index or name (several folders of one class are taken together); for a channel, any
            photographs, of which those that excite it most are chosen. If there are fewer than
            `settings.references`, random crops make up the number.
        layers: the layers to match, in order from the image on. If none are given, they are the
            paper's for this network, or picked.
        settings: see `Settings`.
        start_size: begin with a picture this many pixels wide and high, for `start_steps` steps,
            500 unless given.
        start_pooled: begin with so many steps in which the network sees the picture and the
            references at half their size, averaged over 2 × 2 pixels (VITAL's code, with 2,000
            such steps and 1,000 after them).
        weights, example, size: the network's, as for `onnxplain.export`.
        provider, threads, precision: as for `onnxplain.runtime.sessions.open_session`.
        state: the file to save the optimisation's state to. If it exists, the optimisation
            continues from it, to the same picture. It stays at the end, and the next call then
            returns at once. `onnxplain.vital.state.files` names the files beside it: the state of
            a start at another size, and the table of a channel's search.
        step_graph: where to keep the step's ONNX file too; beside it, with the suffix .npz, its
            first inputs.
        progress: called from time to time.

    Raises:
        SourceError: the network cannot be read; no such layer.
        InputError: a class or channel that does not exist, or is given twice; no references; a
            setting out of range; `state` belongs to another optimisation; it or `step_graph`
            cannot be written; the loss is no longer finite.
        BackendError: the runtime failed, or is missing.
    """
    chosen = (settings or Settings()).checked()
    wanted = _wanted(target, layer, channel)
    _check_used(chosen, inner=layer is not None)
    folder = _needed(references, chosen)
    if chosen.together > 1 and (layer is not None or chosen.objective != "vital"):
        raise InputError("several pictures together are for a class, aligned with references")
    begun = _begun(start_size, start_steps, start_pooled)
    if begun is not None and chosen.fourier:
        raise InputError("a start at another size is for pixels, not for a spectrum")
    if begun is not None and not begun.pooled and not chosen.clip:
        raise InputError(
            "a start at another size hands over valid pixels: leave out clip=False, or begin pooled"
        )
    path = None if state is None else writable(state, source)
    kept = None if step_graph is None else writable(step_graph, source)

    engine = Engine(provider, threads, precision).checked()

    check_source(source)
    from onnxplain.vital.graphs.subject import read_subject
    from onnxplain.vital.phases import plans_of, run

    read = partial(
        read_subject,
        source,
        weights=weights,
        example=example,
        layers=layers,
        neuron=layer,
        fold_norms=chosen.batch_norm == "folded",
    )
    plans = plans_of(chosen, size, begun, path, kept)
    return run(plans, read, wanted, engine, folder, begun, progress)


def _begun(size: int | None, steps: int | None, pooled: bool) -> Start | None:
    if size is not None and pooled:
        raise InputError("begin at another size, or pooled: choose one")
    if size is None and not pooled:
        if steps is not None:
            raise InputError(
                "start_steps are those of a start: give its start_size or start_pooled"
            )
        return None
    return Start(pooled, size, _START_STEPS if steps is None else steps)


def _wanted(target: Any, layer: str | None, channel: Any) -> Sequence[Any]:
    """The classes or channels asked for, as they were given."""
    if (target is None) == (channel is None) or (channel is None) != (layer is None):
        raise InputError("give a target, or a layer and a channel of it")
    return _several(target if layer is None else channel)


def _needed(references: str | os.PathLike[str] | None, settings: Settings) -> Path | None:
    """The folder of references, if the objective needs one.

    Raises:
        InputError: none is given, or it is no folder.
    """
    if settings.objective != "vital":
        return None
    if references is None:
        raise InputError("no reference images; give a folder of photographs with references=")
    check_folder(Path(references))
    return Path(references)


def _check_used(settings: Settings, inner: bool) -> None:
    """Raise InputError for a setting, other than by default, that would change nothing."""
    matched = inner and settings.objective == "vital"
    rules = ("pool_rule", "skip_rule", "relevance_share", "batch_norm")
    default = Settings()
    for unused, names, use in (
        (
            settings.objective != "vital",
            ("references", "resize", "weights"),
            "references that are matched, which the objective vital does",
        ),
        (
            not matched,
            ("relevance", "ranking", *rules),
            "a channel that references are matched for",
        ),
        (settings.relevance == "guided", rules, "relevance by lrp or restricted, not guided"),
        (settings.fourier, ("clip",), "pixels: a spectrum's are always valid"),
    ):
        for name in names:
            if unused and getattr(settings, name) != getattr(default, name):
                flag = declared(Settings)[name].name
                option = f" (--{flag.replace('_', '-')})" if flag else ""
                raise InputError(f"{name}{option} is for {use}; leave it out")


def _several(wanted: Any) -> Sequence[Any]:
    """One neuron, several or an array of them as a sequence, with Python's own integers."""
    if isinstance(wanted, np.ndarray | np.generic):
        wanted = wanted.tolist()
    several = wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
    if not several:
        raise InputError("no neuron to visualise")
    return [one.item() if isinstance(one, np.integer) else one for one in several]
