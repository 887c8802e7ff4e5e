"""The optimisation: runs of a step graph, whose state can be saved and resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract import steps
from onnxplain.contract.explain import IMAGE, TARGET, Metadata
from onnxplain.contract.steps import StepMetadata
from onnxplain.errors import InputError
from onnxplain.runtime.inputs.batches import to_photographs
from onnxplain.runtime.sessions import Session
from onnxplain.vital.references import Templates
from onnxplain.vital.schedule import mirrored, rates, shifts
from onnxplain.vital.settings import Settings
from onnxplain.vital.state import Kept, Moment, beginning, by_input

_SPECTRUM_NOISE = 0.01  # Lucid's standard deviation of a spectrum to start from
_AGREEMENT = 0.01  # of the gradient's norm
_CHUNK = 10  # steps between reports
_PICTURES = 50  # of the animation
_SAVED_EVERY = 100  # steps


class DivergedError(InputError):
    """The loss is no longer finite."""


class Optimisation:
    """The pictures of N neurons while they are being made.

    Args:
        graph: a step, written by `onnxplain.vital.graphs.step.write_step`.
        settings: with weights and priors.
        neurons: the classes, or the channels.
        templates: one for each neuron; none where their activation is maximised.
        start: pictures to start from instead of noise, float32 [N, C, H, W] (in the network's
            layout), normalised; not for a spectrum.
        fingerprint: goes into the file that the state is saved to; see `Kept`.
    """

    def __init__(
        self,
        graph: Session,
        settings: Settings,
        neurons: Sequence[int],
        templates: Sequence[Templates],
        start: NDArray[np.float32] | None = None,
        fingerprint: str = "",
    ) -> None:
        self.graph = graph
        self.settings = settings
        self._fingerprint = fingerprint
        self._templates = templates
        self._pre = Metadata.from_props(graph.metadata).preprocessing
        about = StepMetadata.from_props(graph.metadata)
        self._carried = dict(about.carried)
        count = len(neurons) * settings.together
        self._inputs: dict[str, NDArray[Any]] = {
            steps.LEARNING_RATES: rates(settings),
            steps.SHIFTS: shifts(settings),
            steps.MIRRORED: mirrored(settings),
            steps.PRIORS: np.array(settings.priors, np.float32),
        }
        if settings.objective != "vital":
            name = TARGET if about.neuron is None else steps.CHANNEL
            self._inputs[name] = np.array(neurons)
        else:
            self._inputs[steps.WEIGHTS] = np.array(settings.weights, np.float32)
            each = [own for own in templates for _ in range(settings.together)]
            self._inputs |= by_input(each)
            if about.neuron is not None:
                self._inputs[steps.CHANNEL] = np.array(neurons)
        first = self._first(count, start)
        self._now = Moment(first, first.get(IMAGE))

    def _first(self, count: int, start: NDArray[np.float32] | None) -> dict[str, NDArray[Any]]:
        """Noise, the same for every neuron whatever the others are, and zeros for Adam.

        The pictures of one class that are aligned together have noises of their own.
        """
        pre = self._pre
        size = [pre.channels, pre.height, pre.width]
        shape = size if pre.layout == "NCHW" else [*size[1:], size[0]]
        moving = [2, size[0], size[1], size[2] // 2 + 1] if self.settings.fourier else shape
        random, each = np.random.default_rng([self.settings.seed, 0]), self.settings.together
        noise = random.standard_normal([each, *moving])
        if self.settings.fourier:
            noise *= _SPECTRUM_NOISE
        first = np.concatenate([noise.astype(np.float32)] * (count // each))
        if start is not None:
            first = start
        zeros = np.zeros_like(first)
        return {
            (steps.SPECTRUM if self.settings.fourier else IMAGE): first,
            steps.FIRST_MOMENT: zeros,
            steps.SECOND_MOMENT: zeros,
            steps.MAGNITUDE: np.zeros((count, *shape), np.float32),
            steps.STEP: np.array(0),
            steps.LOSSES: np.zeros((self.settings.steps, count), np.float32),
        }

    @property
    def inputs(self) -> dict[str, NDArray[Any]]:
        """All inputs of the next step, by name."""
        return {**self._inputs, **self.state}

    @property
    def state(self) -> Mapping[str, NDArray[Any]]:
        """What is carried from step to step, by the names of its inputs."""
        return self._now.carried

    @property
    def done(self) -> int:
        """How many steps have been taken."""
        return int(self.state[steps.STEP])

    @property
    def losses(self) -> NDArray[np.float32]:
        """The losses of the steps taken, [done, N]."""
        return self.state[steps.LOSSES][: self.done]

    @property
    def batch(self) -> NDArray[np.float32]:
        """The pictures as the network's input, [N, C, H, W] in its layout; after the first step."""
        assert self._now.picture is not None
        return self._now.picture

    @property
    def pictures(self) -> NDArray[np.uint8]:
        """The same as pixels, [N, H, W, 3]."""
        return to_photographs(self.batch, self._pre)

    @property
    def frames(self) -> tuple[NDArray[np.uint8], ...]:
        """Earlier pictures, about fifty by the end."""
        return self._now.frames

    @property
    def magnitude(self) -> NDArray[np.float32]:
        """Each pixel's gradient magnitude over all steps, averaged over the channels: [N, H, W]."""
        channels = 1 if self._pre.layout == "NCHW" else 3
        mean: NDArray[np.float32] = self.state[steps.MAGNITUDE].mean(axis=channels)
        return mean

    def advance(self, count: int, keep_frame: bool = False) -> None:
        """Take `count` steps, or as many as are left; then keep the pictures as a frame, if asked.

        Raises:
            BackendError: the runtime failed.
            DivergedError: the loss is no longer finite. The state is as it was before these steps.
        """
        times = min(count, self.settings.steps - self.done)
        found = self._iterated(times)
        carried = {name: found[steps.following(name)] for name in self.state}
        # The loss alone would not do: it belongs to the picture before.
        if not all(np.isfinite(array).all() for array in carried.values()):
            raise DivergedError(
                f"the loss is no longer a number after step {self.done + times}; give a lower "
                "learning rate"
            )
        picture = found[steps.RENDERED if self.settings.fourier else steps.following(IMAGE)]
        frames = self.frames
        if keep_frame:
            frames = (*frames, to_photographs(picture, self._pre))
        # One assignment: an interruption finds all of these steps, or nothing.
        self._now = Moment(carried, picture, frames)

    def _iterated(self, times: int) -> dict[str, NDArray[Any]]:
        also = [steps.RENDERED] if self.settings.fourier else []
        return self.graph.iterate(self.inputs, self._carried, times, also)

    def agrees_with(self, other: Optimisation) -> bool:
        """Whether a step's gradient is the same in `other`, to within 1 % of its norm."""
        moments = [run._iterated(1)[steps.following(steps.FIRST_MOMENT)] for run in (self, other)]
        difference = float(np.linalg.norm(moments[0] - moments[1]))
        return difference <= _AGREEMENT * float(np.linalg.norm(moments[1]))

    def save(self, path: Path) -> None:
        """Write everything needed to resume, completely or not at all.

        Raises:
            InputError: the path cannot be written.
        """
        Kept(self._fingerprint, self.graph.provider, self._templates, self._now).save(path)

    def resume(self, moment: Moment) -> None:
        """Continue from that moment."""
        self._now = moment


def optimise(
    run: Optimisation, state: Path | None, advanced: Callable[[Optimisation], None]
) -> None:
    """Run to the end. The state is saved from time to time, and on an interruption.

    Args:
        state: the file to save to, if any.
        advanced: called every few steps.

    Raises:
        BackendError: the runtime failed.
        InputError: the loss is no longer finite (the message names what to delete before trying
            other settings); `state` cannot be written.
    """
    try:
        _optimise(run, state, advanced)
    except DivergedError as error:
        kept = [] if state is None else [f"'{p}'" for p in (state, beginning(state)) if p.exists()]
        also = f" and another folder, or delete {' and '.join(kept)}" if kept else ""
        raise DivergedError(f"{error}{also}") from error


def _optimise(
    run: Optimisation, state: Path | None, advanced: Callable[[Optimisation], None]
) -> None:
    total = run.settings.steps
    between = max(total // _PICTURES, 1)
    saved = run.done
    try:
        while run.done < total:
            left = min(between - run.done % between, total - run.done)
            run.advance(min(_CHUNK, left), keep_frame=left <= _CHUNK)
            advanced(run)
            if state is not None and run.done - saved >= _SAVED_EVERY:
                run.save(state)
                saved = run.done
    finally:
        if state is not None and run.done > saved:
            run.save(state)
