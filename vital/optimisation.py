"""The optimisation: runs of a step graph, whose state can be kept and taken up again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract import IMAGE, TARGET, Metadata
from onnxplain.errors import InputError
from onnxplain.files import replacing
from onnxplain.runtime.batches import to_photographs
from onnxplain.runtime.graphs import Graph
from onnxplain.steps import (
    CHANNEL,
    FIRST_MOMENT,
    LEARNING_RATES,
    LOSSES,
    MAGNITUDE,
    MIRRORED,
    PRIORS,
    RENDERED,
    SECOND_MOMENT,
    SHIFTS,
    SPECTRUM,
    STEP,
    WEIGHTS,
    StepMetadata,
    following,
    importance,
    template,
)
from onnxplain.vital.references import Templates
from onnxplain.vital.settings import Settings

_SPECTRUM_NOISE = 0.01  # Lucid's standard deviation of a spectrum to start from
_AGREEMENT = 0.01  # of the gradient's norm
_CHUNK = 10  # steps between reports
_PICTURES = 50  # of the animation
_SAVED_EVERY = 100  # steps
_FRAMES = "frames"
_FINGERPRINT = "fingerprint"


class Optimisation:
    """Pictures of N neurons on their way.

    Args:
        graph: of `onnxplain.export.vital.write_step`.
        settings: with weights and priors.
        neurons: the classes, or the channels.
        templates: of each of them; none where their activation is maximised.
        start: pictures to start from in place of noise, float32 [N, C, H, W] (in the network's
            layout), normalised; not of a spectrum.
        identity: of the network, so that another's state is not taken up.
    """

    def __init__(
        self,
        graph: Graph,
        settings: Settings,
        neurons: Sequence[int],
        templates: Sequence[Templates],
        start: NDArray[np.float32] | None = None,
        identity: str = "",
    ) -> None:
        self.graph = graph
        self._identity = identity
        self.settings = settings
        self.frames: list[NDArray[np.uint8]] = []
        self._pre = Metadata.from_props(graph.metadata).preprocessing
        about = StepMetadata.from_props(graph.metadata)
        self._carried = dict(about.carried)
        count = len(neurons)
        self._inputs: dict[str, NDArray[Any]] = {
            LEARNING_RATES: settings.rates(),
            SHIFTS: settings.shifts(),
            MIRRORED: settings.mirrored(),
            PRIORS: np.array(settings.priors, np.float32),
        }
        if settings.objective != "vital":
            name = TARGET if about.neuron is None else CHANNEL
            self._inputs[name] = np.array(neurons)
        else:
            self._inputs[WEIGHTS] = np.array(settings.weights, np.float32)
            if about.neuron is not None:
                self._inputs[CHANNEL] = np.array(neurons)
            for i in range(len(about.layers)):
                self._inputs[template(i)] = np.stack([t.sorted[i] for t in templates])
                if about.neuron is not None:
                    self._inputs[importance(i)] = np.stack([t.importances[i] for t in templates])
        self._state = self._first(count, start)
        self._picture = self._state.get(IMAGE)

    def _first(self, count: int, start: NDArray[np.float32] | None) -> dict[str, NDArray[Any]]:
        """Noise, the same for every neuron, whichever are beside it; and Adam's zeros."""
        pre = self._pre
        size = [pre.channels, pre.height, pre.width]
        shape = size if pre.layout == "NCHW" else [*size[1:], size[0]]
        moving = [2, size[0], size[1], size[2] // 2 + 1] if self.settings.fourier else shape
        noise = np.random.default_rng([self.settings.seed, 0]).standard_normal(moving)
        if self.settings.fourier:
            noise *= _SPECTRUM_NOISE
        first = np.repeat(noise[None].astype(np.float32), count, axis=0)
        if start is not None:
            first = start
        zeros = np.zeros_like(first)
        return {
            (SPECTRUM if self.settings.fourier else IMAGE): first,
            FIRST_MOMENT: zeros,
            SECOND_MOMENT: zeros,
            MAGNITUDE: np.zeros((count, *shape), np.float32),
            STEP: np.array(0),
            LOSSES: np.zeros((self.settings.steps, count), np.float32),
        }

    @property
    def state(self) -> dict[str, NDArray[Any]]:
        """The state as it is, by its inputs' names."""
        return self._state

    @property
    def done(self) -> int:
        """The steps that are done."""
        return int(self._state[STEP])

    @property
    def losses(self) -> NDArray[np.float32]:
        """Of the steps that are done, [done, N]."""
        return self._state[LOSSES][: self.done]

    @property
    def batch(self) -> NDArray[np.float32]:
        """The pictures as the network's input, [N, C, H, W] in its layout; after one step."""
        assert self._picture is not None
        return self._picture

    @property
    def pictures(self) -> NDArray[np.uint8]:
        """The same for people, [N, H, W, 3]."""
        return to_photographs(self.batch, self._pre)

    @property
    def magnitude(self) -> NDArray[np.float32]:
        """How much each pixel's gradient came to over the steps, [N, H, W]: a mean of channels."""
        channels = 1 if self._pre.layout == "NCHW" else 3
        mean: NDArray[np.float32] = self._state[MAGNITUDE].mean(axis=channels)
        return mean

    def advance(self, steps: int) -> None:
        """Take so many steps, or those that are left.

        Raises:
            BackendError: the runtime failed.
            InputError: the loss is no longer a number.
        """
        times = min(steps, self.settings.steps - self.done)
        also = [RENDERED] if self.settings.fourier else []
        found = self.graph.iterate(self._inputs | self._state, self._carried, times, also)
        self._state = {name: found[following(name)] for name in self._state}
        self._picture = found[RENDERED] if self.settings.fourier else self._state[IMAGE]
        if not math.isfinite(float(self.losses[-1].sum())):
            raise InputError(
                f"the loss was no number any more at step {self.done}; give a lower learning rate"
            )

    def agrees_with(self, other: Optimisation) -> bool:
        """Whether a step's gradient is the same on the graph of `other`, to 1 % of its norm."""
        moments = [
            run.graph.iterate(run._inputs | run._state, run._carried, 1)[following(FIRST_MOMENT)]
            for run in (self, other)
        ]
        difference = float(np.linalg.norm(moments[0] - moments[1]))
        return difference <= _AGREEMENT * float(np.linalg.norm(moments[1]))

    def keep_frame(self) -> None:
        """Keep the pictures as they are for the animation."""
        self.frames.append(self.pictures)

    def save(self, path: Path) -> None:
        """Write all that `resume` needs, as a whole or not at all.

        Raises:
            InputError: the path cannot be written.
        """
        frames = np.stack(self.frames) if self.frames else np.zeros(0, np.uint8)
        with replacing(path) as beside, beside.open("wb") as file:
            kept: dict[str, Any] = {
                **self._state,
                RENDERED: self.batch,
                _FRAMES: frames,
                _FINGERPRINT: np.array(self.fingerprint),
            }
            np.savez(file, **kept)

    def resume(self, path: Path) -> None:
        """Go on where `save` was.

        Raises:
            InputError: the file is of another optimisation, or damaged.
        """
        try:
            with np.load(path) as file:
                kept = {name: file[name] for name in file.files}
        except (OSError, ValueError, BadZipFile, EOFError) as error:
            raise InputError(
                f"'{path}' cannot be read ({error}); delete it to start again"
            ) from error
        if str(kept.get(_FINGERPRINT)) != self.fingerprint:
            raise InputError(
                f"'{path}' belongs to an optimisation with other settings, references or another "
                "network; delete it (or give another folder) to start this one"
            )
        self._state = {name: kept[name] for name in self._state}
        self._picture = kept[RENDERED]
        self.frames = list(kept[_FRAMES]) if kept[_FRAMES].ndim == 5 else []

    @property
    def fingerprint(self) -> str:
        """The same for optimisations that take the same steps."""
        known = hashlib.sha256()
        for name, array in sorted(self._inputs.items()):
            known.update(name.encode() + np.ascontiguousarray(array).tobytes())
        known.update(repr((self._identity, self.settings, sorted(self._carried))).encode())
        return known.hexdigest()


def optimise(
    run: Optimisation, state: Path | None, advanced: Callable[[Optimisation], None]
) -> None:
    """Go to the end, from `state` if it is there; kept there now and then, and when interrupted.

    `advanced` is called every few steps.
    """
    steps = run.settings.steps
    between = max(steps // _PICTURES, 1)
    if state is not None and state.exists():
        run.resume(state)
    saved = run.done
    try:
        while run.done < steps:
            run.advance(min(_CHUNK, between - run.done % between))
            if run.done % between == 0 or run.done == steps:
                run.keep_frame()
            advanced(run)
            if state is not None and run.done - saved >= _SAVED_EVERY:
                run.save(state)
                saved = run.done
    finally:
        if state is not None and run.done > saved:
            run.save(state)
