"""An explain graph as a function of images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import (
    IMAGE,
    LOGITS,
    NEXT_IMAGE,
    ORIGIN,
    PULLBACK,
    TARGET,
    Metadata,
)
from onnxplain.contract.objective import OBJECTIVE
from onnxplain.errors import BackendError, InputError
from onnxplain.options import also_called, check_type
from onnxplain.printable import printable
from onnxplain.runtime.explanation import Explanation, explanation_of
from onnxplain.runtime.inputs.asked import check_asked
from onnxplain.runtime.inputs.batches import ImageLike, filled, sources
from onnxplain.runtime.inputs.each import each, images_in, metered
from onnxplain.runtime.inputs.objective import as_inputs
from onnxplain.runtime.inputs.pixels import Batch, as_input
from onnxplain.runtime.inputs.scalars import Temperatures, scalar_inputs
from onnxplain.runtime.inputs.targets import Target, Targets, target_input
from onnxplain.runtime.inputs.tensors import is_tensor
from onnxplain.runtime.nonfinite import made_by
from onnxplain.runtime.on_device import Tensor, TensorExplanation, explain_tensor
from onnxplain.runtime.outputs import in_floats, joined, of_images
from onnxplain.runtime.sessions import Backend
from onnxplain.runtime.sessions.tensorrt.engine import SUFFIX
from onnxplain.runtime.values import ValuesExplanation, explain_values

_IMAGES_PER_RUN = 16


class Explainer:
    """Explains images with one explain graph. Several threads may call it at once.

    Attributes:
        backend: what runs the graph.
        metadata: what the file says about the method, the source and the preprocessing.
        labels: the class names; empty when the file has none.
        path: the graph's file; None of an engine.
        multi_target: whether one run explains several targets per image.
        allow_nonfinite: whether an explanation may hold NaN or infinity, which is otherwise an
            error; one of a tensor is not looked at.
    """

    def __init__(self, backend: Backend, path: str | os.PathLike[str] | None = None) -> None:
        self.backend = backend
        self.path = None if path is None or Path(path).suffix == SUFFIX else Path(path)
        self.allow_nonfinite = False
        self._diagnosed = False
        self.metadata: Metadata = backend.signature.metadata
        self.labels: tuple[str, ...] = self.metadata.labels
        self.multi_target: bool = backend.signature.multi_target

    def __repr__(self) -> str:
        file = "an engine" if self.path is None else f"'{self.path}'"
        network = f"{self.metadata.source}, {self.metadata.described_method}"
        backend = f"{self.backend.name} on {self.backend.device} in {self.backend.precision}"
        return printable(f"<Explainer: {file}; {network}; {backend}>")

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self,
        images: ImageLike | Sequence[ImageLike],
        targets: Targets = ...,
        temperature: Temperatures = ...,
        batch_size: int | None = ...,
        **inputs: Any,
    ) -> Explanation: ...
    @overload
    def __call__(
        self,
        images: Mapping[str, Any],
        targets: Targets = ...,
        temperature: Temperatures = ...,
        **inputs: Any,
    ) -> ValuesExplanation: ...
    @overload
    def __call__(
        self, images: Tensor, targets: Any = ..., temperature: Temperatures = ..., **inputs: Any
    ) -> TensorExplanation: ...
    @also_called(target="targets")
    def __call__(
        self,
        images: Any,
        targets: Any = None,
        temperature: Temperatures = None,
        batch_size: int | None = None,
        **inputs: Any,
    ) -> Explanation | TensorExplanation | ValuesExplanation:
        """Explain images, or what else the file explains by.

        Args:
            images: one image or several: paths, folders, glob patterns, PIL images, uint8 pixels
                ([H,W], [H,W,C] or [N,H,W,C], any size), or floats already normalised ([C,H,W] or
                [N,C,H,W] of the network's size; channel last where the graph's layout is NHWC),
                which a file that takes photographs (`metadata.pixels`) does not; or whatever gives
                such one by one: a list, also of tensors, a generator, a data loader (of whose
                tuples the first is taken). All are in memory at once; `map` holds a few.
                Or a tensor of
                another package (torch, CuPy, JAX), as the graph takes it, on the host or on the
                backend's GPU: it is explained in one run where it lies, and what comes back is
                of its package and lies there too. Of a file that explains by other values than
                an image, a mapping: the network's inputs, arrays [N,…] by name
                (`metadata.values.inputs`), explained in one run.
            targets: None for the predicted class; a class index (negative: from the top of the
                ranking, -2 the runner-up) or class name for all images; one per image, [N]; or,
                for a graph exported with --multi-target, several per image, [N,K].
            temperature: only for a graph exported with --live-temperature; None takes the one
                exported. Of one exported with --live too, several by name: `{"relu": 0.5}`.
            batch_size: images per run of the graph. By default that of a graph with a fixed batch;
                else 16, or an engine's largest batch if that is smaller.
            inputs: what the file's objective takes besides: `query` of an embedding, `region` of a
                segmentation, `box` of a detector (`metadata.objective.inputs` says what they are);
                of one image or [N, …], one for all or one each. And what its estimator takes:
                images like `images`, one `baseline` for all or one each, `baselines` for all.

        Returns:
            The explanation of the N images, in their order; a `TensorExplanation` of a tensor, a
            `ValuesExplanation` of a mapping.

        Raises:
            InputError: an image, target, temperature, batch size or input of the objective that
                cannot be used; or what the network puts out, or the pullback, is NaN or infinite.
            BackendError: the runtime failed.
        """
        if self.metadata.values:
            if batch_size is not None:
                raise InputError("arrays by name are explained in one run: give fewer at a time")
            found = explain_values(self.backend, images, targets, temperature, inputs)
            if not self.allow_nonfinite:
                found.require_finite()
            return found
        if isinstance(images, Mapping):
            raise InputError(
                "this file explains images: give them, and what its objective takes by keyword"
            )
        if is_tensor(images):
            if batch_size is not None:
                raise InputError("a tensor is explained in one run; split it for smaller batches")
            one = len(self.metadata.pixels.shape) or 3
            images = images[None] if len(images.shape) == one else images
            scalars = scalar_inputs(self.backend.signature, temperature)
            return explain_tensor(self.backend, images, targets, scalars, inputs)
        signature, images = self.backend.signature, [*each(images)]
        batch, photographs = as_input(images, signature)
        indices = target_input(signature, targets, len(batch))
        own = as_inputs(signature, inputs, len(batch))
        explanation = self.explain_batch(batch, photographs, indices, temperature, batch_size, own)
        self.require_finite(explanation, batch, indices, temperature, own)
        return replace(explanation, sources=sources(images))

    def require_finite(
        self,
        explanation: Explanation,
        batch: Batch,
        targets: NDArray[np.int64],
        temperature: Temperatures = None,
        inputs: Mapping[str, NDArray[Any]] = MappingProxyType({}),
    ) -> None:
        """Refuse what is NaN or infinite, unless that is allowed.

        The first time, the error names the operator that made it: the image is explained once more
        for that, with all values of the graph in memory.

        Args:
            batch, targets, temperature, inputs: what was explained, as for `explain_batch`.

        Raises:
            InputError: something is.
        """
        found = None if self.allow_nonfinite else explanation.nonfinite()
        if found is None:
            return
        try:
            explanation.require_finite()
        except InputError as error:
            if self.path is None or self._diagnosed:
                raise
            self._diagnosed = True
            at = slice(found[0], found[0] + 1)
            given = self._per_image(batch, targets, inputs)
            chunk = self._filled({name: array[at] for name, array in given.items()})
            feeds = chunk | scalar_inputs(self.backend.signature, temperature) | self._sets(inputs)
            with suppress(BackendError):  # it ran, but perhaps not with all values in memory
                why = made_by(self.path, feeds, [LOGITS, OBJECTIVE, PULLBACK])
                raise InputError(f"{error}. {why}") from None
            raise

    explain = __call__

    @also_called(target="targets")
    def map(
        self,
        images: Any,
        targets: Target | Iterable[Target | Sequence[Target]] | None = None,
        temperature: Temperatures = None,
        batch_size: int | None = None,
        *,
        progress: bool | None = None,
        **inputs: Any,
    ) -> Iterator[Explanation]:
        """Explain images one after the other, however many: those of one run are in memory.

            for explanation in explainer.map("photos/", "tabby"):
                explanation.save(...)

        Args:
            images: as for `__call__`, but for tensors of another device.
            targets: None for the predicted class; an index or a name for all images; or an iterable
                with those of each.
            temperature, batch_size: as for `__call__`.
            progress: whether a line on standard error says how many there were; None for a terminal
                alone.
            inputs: as for `__call__`, the same for all images.

        Yields:
            An explanation, of length 1, for each image.

        Raises:
            InputError, BackendError: as `__call__`, the targets' at once if they are the same for
                all images.
        """
        size = 1 if self.metadata.preprocessing.any_size else self._batch_size(batch_size)
        own: Iterator[Any] | None = None
        if targets is None or isinstance(targets, int | str):
            self.check(None if targets is None else [targets], temperature, inputs)
        else:
            own = iter(targets)

        def explained(chunk: Sequence[Any]) -> Iterator[Explanation]:
            count = sum(map(images_in, chunk))
            wanted: Any = targets if own is None else [*islice(own, count)]
            found = self(chunk, wanted, temperature, batch_size, **inputs)
            yield from (found[i] for i in range(count))

        def runs() -> Iterator[Explanation]:
            chunk: list[Any] = []
            for item in each(metered(images, progress)):
                chunk.append(item)
                if sum(map(images_in, chunk)) >= size:
                    yield from explained(chunk)
                    chunk = []
            if chunk:
                yield from explained(chunk)

        return runs()

    @also_called(targets="target")
    def attribute(self, images: Any, target: Targets = None, **options: Any) -> Any:
        """The pullback alone of what calling the explainer gives, as Captum's `attribute` does.

        Args:
            images, options: as for `__call__`.
            target: its `targets`.

        Returns:
            [N,C,H,W], or [N,K,C,H,W] of several targets; of the package of a tensor that was given.

        Raises:
            InputError, BackendError: as `__call__`.
        """
        return self(images, target, **options).pullback

    def explain_batch(
        self,
        batch: Batch,
        photographs: NDArray[np.uint8],
        targets: NDArray[np.int64],
        temperature: Temperatures = None,
        batch_size: int | None = None,
        inputs: Mapping[str, NDArray[Any]] | None = None,
    ) -> Explanation:
        """What calling the explainer does once all is arrays; NaN and infinity pass.

        Args:
            batch, photographs: as `onnxplain.runtime.inputs.pixels.as_input` makes them.
            targets, temperature, batch_size, inputs: as for `answer`.

        Raises:
            InputError: a temperature or batch size that cannot be used.
            BackendError: the runtime failed.
        """
        signature = self.backend.signature
        own = as_inputs(signature, {}, len(batch)) if inputs is None else inputs
        outputs = self.answer(batch, targets, temperature, batch_size, own)
        return explanation_of(signature, outputs, targets, photographs, own)

    def answer(
        self,
        batch: Batch,
        targets: NDArray[np.int64],
        temperature: Temperatures = None,
        batch_size: int | None = None,
        inputs: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """What the graph puts out, by name; channels come first in the pullback.

        An output whose batch axis is not known is that of each run; where two differ, it is left
        out.

        Args:
            batch: the network's input, as `onnxplain.runtime.inputs.pixels.as_input` makes it.
            targets: as `onnxplain.runtime.inputs.targets.target_input` makes them.
            temperature, batch_size: as for `__call__`.
            inputs: what objective and estimator take besides, as
                `onnxplain.runtime.inputs.objective.as_inputs` makes it; None for its defaults.

        Raises:
            InputError: a temperature or batch size that cannot be used.
            BackendError: the runtime failed.
        """
        signature, explained = self.backend.signature, self.metadata.objective
        own = as_inputs(signature, {}, len(batch)) if inputs is None else inputs
        if isinstance(batch, list):
            return self._of_sizes(batch, targets, temperature, batch_size, own)
        given = self._per_image(batch, targets, own)
        scalars = scalar_inputs(signature, temperature) | self._sets(own)
        size = self._batch_size(batch_size)
        runs = [
            self._run({name: array[start : start + size] for name, array in given.items()}, scalars)
            for start in range(0, len(batch), size)
        ]
        outputs = dict(joined(explained, runs))
        if self.metadata.preprocessing.layout == "NHWC":
            outputs[PULLBACK] = np.moveaxis(outputs[PULLBACK], -1, -3)
        return outputs

    def _of_sizes(
        self,
        batch: list[NDArray[Any]],
        targets: NDArray[np.int64],
        temperature: Temperatures,
        batch_size: int | None,
        own: Mapping[str, NDArray[Any]],
    ) -> dict[str, NDArray[Any]]:
        """The same of photographs of several sizes: those of each together."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, photograph in enumerate(batch):
            groups.setdefault(photograph.shape, []).append(i)
        sets = self._sets(own)
        answers = [
            self.answer(
                np.stack([batch[i] for i in each]),
                targets[each],
                temperature,
                batch_size,
                {n: array if n in sets else array[each] for n, array in own.items()},
            )
            for each in groups.values()
        ]
        order, explained = np.argsort([*chain(*groups.values())]), self.metadata.objective
        return dict(of_images(explained, joined(explained, answers), order))

    def _per_image(
        self, batch: Any, targets: NDArray[np.int64], own: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """The graph's inputs that have a row for each image, by name."""
        signature = self.backend.signature
        sets = self._sets(own)
        given = {IMAGE: batch, **{n: array for n, array in own.items() if n not in sets}}
        if signature.has_target:
            given[TARGET] = targets
        if signature.step:
            given[ORIGIN] = batch
        return given

    def _sets(self, own: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Those of the inputs that are the same for every image, by name."""
        declared = self.metadata.estimator.inputs.items()
        return {name: own[name] for name, one in declared if one.several}

    def check(
        self,
        targets: Sequence[int | str] | None,
        temperature: Temperatures = None,
        inputs: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Whether these targets can be explained at this temperature, before any image is read.

        Arguments and errors are those of `onnxplain.runtime.inputs.asked.check_asked`.
        """
        check_asked(self.backend.signature, targets, temperature, inputs)

    def _run(
        self, chunk: dict[str, NDArray[Any]], scalars: dict[str, NDArray[Any]]
    ) -> Mapping[str, NDArray[Any]]:
        """One run of the graph.

        Raises:
            BackendError: the runtime failed, or what is explained has not a row for each image.
        """
        length, explained = len(chunk[IMAGE]), self.metadata.objective
        chunk = self._filled(chunk)
        found = in_floats(self.backend.run(chunk | scalars))
        outputs = {name: array for name, array in found.items() if name != NEXT_IMAGE}
        for name in outputs.keys() & {LOGITS, OBJECTIVE, PULLBACK}:
            axis, shape = explained.batch_axis(name), outputs[name].shape
            if axis is not None and shape[axis : axis + 1] != (len(chunk[IMAGE]),):
                raise BackendError(
                    f"the graph gives {name} of the shape {list(shape)} for "
                    f"{len(chunk[IMAGE])} images; it was not written by onnxplain, or is damaged"
                )
        return of_images(explained, outputs, slice(length))

    def _filled(self, chunk: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """A chunk too short for a run repeats its last image."""
        least = self.backend.signature.batch or self.backend.signature.least
        return {name: filled(np.asarray(array), least) for name, array in chunk.items()}

    def _batch_size(self, wanted: int | None) -> int:
        fixed, most = self.backend.signature.batch, self.backend.signature.most
        check_type("batch_size", wanted, int | None)
        if wanted is None:
            return fixed or min(_IMAGES_PER_RUN, most or _IMAGES_PER_RUN)
        if most and wanted > most:
            raise InputError(
                f"this engine takes batches of {most} at most, not of {wanted}; build one for "
                "others: onnxplain build --batch SMALLEST,USUAL,LARGEST"
            )
        if fixed and wanted != fixed:
            raise InputError(f"this graph was exported for batches of {fixed}, not of {wanted}")
        if wanted < 1:
            raise InputError(f"a batch has at least one image, not {wanted}")
        return wanted
