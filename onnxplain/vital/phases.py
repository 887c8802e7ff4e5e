"""The phases of a visualisation, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import Preprocessing
from onnxplain.errors import InputError
from onnxplain.export.tensors import dims
from onnxplain.files import scratch
from onnxplain.runtime.inputs.targets import find_class
from onnxplain.vital.engine import Engine
from onnxplain.vital.graphs.subject import Subject, pooled
from onnxplain.vital.phase import Phase, Progress, Seen
from onnxplain.vital.result import Visualisation
from onnxplain.vital.settings import Settings, Start
from onnxplain.vital.state import beginning


class Plan(NamedTuple):
    """What differs between the phases: a start at another size, or pooled, and the rest."""

    size: tuple[int, int] | None
    pooled: bool
    settings: Settings
    state: Path | None
    step_graph: Path | None


def plans_of(
    settings: Settings,
    size: int | tuple[int, int] | None,
    begun: Start | None,
    state: Path | None,
    step_graph: Path | None,
) -> list[Plan]:
    """The phases of a visualisation, in order.

    Raises:
        InputError: a setting that does not go with the start.
    """
    own = (size, size) if isinstance(size, int) else size
    whole = Plan(own, False, settings, state, step_graph)
    if begun is None:
        return [whole]
    before = None if state is None else beginning(state)
    first = replace(settings, steps=begun.steps).checked()
    if begun.size is None:  # the shifts are of what the network sees
        return [Plan(own, True, replace(first, roll=settings.roll // 2), before, None), whole]
    return [Plan((begun.size, begun.size), False, first, before, None), whole]


def run(
    plans: Sequence[Plan],
    read: Callable[..., Subject],
    wanted: Sequence[Any],
    engine: Engine,
    references: Path | None,
    begun: Start | None,
    progress: Callable[[Progress], None],
) -> Visualisation:
    """One phase after the other, each starting from the pictures of the one before.

    Args:
        read: the network at a size, `onnxplain.vital.graphs.subject.read_subject` but for that.
        wanted: classes, by index or name, or channels.

    Raises:
        As `onnxplain.visualize`.
    """
    before: Seen | None = None
    at = cache(lambda size: read(size=size))
    with scratch() as folder:
        for plan in plans:
            progress(Progress("reading the network", 0, 1))
            subject = at(plan.size)
            if plan.pooled:
                subject = pooled(at(_half(subject.pre)), subject.pre)
            phase = Phase(
                subject=subject,
                settings=plan.settings,
                neurons=find_neurons(subject, wanted, plan.settings.together),
                engine=engine,
                references=references,
                begun=begun,
                state=plan.state,
                scratch=folder,
                progress=progress,
            )
            before = phase.run(_handed_over(before, begun, phase), plan.step_graph)
    assert before is not None
    return before.visualisation


def _handed_over(
    before: Seen | None, begun: Start | None, phase: Phase
) -> NDArray[np.float32] | None:
    """The network's input with which a phase begins; None for noise."""
    if before is None or begun is None:
        return None
    if begun.pooled:
        return before.batch
    return np.stack([phase.input_of(picture) for picture in before.visualisation.pictures])


def _half(pre: Preprocessing) -> tuple[int, int]:
    if pre.height % 2 or pre.width % 2:
        raise InputError(f"{pre.height} × {pre.width} pixels cannot be halved; give an even size=")
    return pre.height // 2, pre.width // 2


def find_neurons(subject: Subject, wanted: Sequence[Any], together: int = 1) -> tuple[int, ...]:
    """The indices of classes, or of channels of the subject's layer, of so many pictures each.

    Raises:
        InputError: an unknown class, or a number out of range; the same one twice; fewer or more
            than a network with a fixed batch takes.
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
    if isinstance(batch, int) and batch != len(found) * together:
        if batch % together:
            raise InputError(
                f"this network only takes batches of {batch}, which together={together} does not "
                "divide"
            )
        count = batch // together
        raise InputError(f"this network only takes batches of {batch}: visualise {count} at a time")
    return tuple(found)
