"""One shard: its images are read, explained and written, and the result is committed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from onnxplain.batch.attempt import Attempt
from onnxplain.batch.commit import Folder, Record, durable
from onnxplain.batch.listing import Item
from onnxplain.batch.plan import Recipe
from onnxplain.batch.reading import Prepared, loads, prepare
from onnxplain.batch.rows import Rows
from onnxplain.batch.tables import Tables
from onnxplain.runtime import Explainer, Explanation
from onnxplain.runtime.ahead import ahead
from onnxplain.runtime.inputs.objective import stacked
from onnxplain.runtime.inputs.pixels import stacked_frames
from onnxplain.runtime.inputs.targets import target_input

ENGINE = "engine"
"""The provider of an engine of `onnxplain build`, which knows its own."""

_GPU_PROVIDERS = ("cuda", "ort-tensorrt", "tensorrt", "tensorrt-rtx", ENGINE)

_BATCH, _GPU_BATCH = (
    4,
    32,
)  # EfficientNet-Lite0 on a CPU takes less time per image with 4 than with 16
_ROW_GROUP_BYTES = 32 << 20


class ShardExplainer:
    """Explains shards of one plan, with one backend.

    Args:
        decoders: threads that read and decode, besides the one that explains.
        images: what the estimator takes, of which the recipe has the digests.

    Raises:
        InputError: a target, temperature or batch size that the graph cannot take.
    """

    def __init__(
        self,
        explainer: Explainer,
        recipe: Recipe,
        decoders: int,
        images: Mapping[str, NDArray[Any]] = MappingProxyType({}),
    ) -> None:
        self._explainer, self._recipe = explainer, recipe
        self._inputs = {**recipe.inputs, **images}
        signature = explainer.backend.signature
        targets = None if recipe.target is None else [recipe.target]
        explainer.check(targets, recipe.temperature, self._inputs)
        usual = signature.batch or _usual(recipe, signature.most)
        self._batch_size = usual if recipe.batch_size is None else recipe.batch_size
        self._rows = Rows(explainer, recipe.top, recipe.store)
        self._tables = Tables(recipe.image_column)
        self._pool = ThreadPoolExecutor(decoders, "decode")

    def explain(
        self, folder: Folder, shard: int, items: Sequence[Item], attempt: Attempt | None = None
    ) -> Record:
        """Write the shard's part of the table, and commit it.

        An image that cannot be read, or whose explanation is not finite, is a row with an error.

        Args:
            attempt: this one, if an image may have ended an earlier attempt.

        Raises:
            InputError: the table cannot be written.
            BackendError: the runtime failed.
        """
        errors = 0
        with durable(folder.part(shard)) as beside:
            errors = self._write(beside, self._batches(shard, items, attempt))
        return folder.commit(shard, len(items), errors)

    def _write(self, path: Path, batches: Iterator[pyarrow.RecordBatch]) -> int:
        """Write the table in row groups, and return the number of errors in it."""
        errors, pending = 0, []
        with pyarrow.parquet.ParquetWriter(
            path,
            self._rows.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=self._rows.repeating,
            use_byte_stream_split=self._rows.floats,  # 27 % smaller
        ) as writer:
            for batch in batches:
                errors += len(batch) - batch.column("error").null_count
                pending.append(batch)
                if sum(part.nbytes for part in pending) >= _ROW_GROUP_BYTES:
                    writer.write_table(pyarrow.Table.from_batches(pending))
                    pending = []
            if pending:
                writer.write_table(pyarrow.Table.from_batches(pending))
        return errors

    def _batches(
        self, shard: int, items: Sequence[Item], attempt: Attempt | None
    ) -> Iterator[pyarrow.RecordBatch]:
        """The shard's rows, as many at a time as one run of the graph explains."""
        size = self._batch_size
        reading = loads(items, self._tables)
        calls: Iterator[Callable[[], Prepared]]
        calls = (partial(prepare, self._explainer, load, self._inputs) for load in reading)
        decoded, made = 2 * size, 1  # ahead
        if attempt is not None and attempt.watched:
            calls = (partial(attempt.watch, i, decode) for i, decode in enumerate(calls))
            decoded = made = 0  # so that nothing else can have ended the process
        images = ahead(self._pool, calls, decoded)
        first = shard * self._recipe.shard_size

        def explained() -> Iterator[Callable[[], pyarrow.RecordBatch]]:
            for start in range(0, len(items), size):
                prepared = list(islice(images, size))
                errors = [image.error for image in prepared]
                explanation = self._explain(prepared, errors)
                ids = [item.id for item in items[start : start + size]]
                sizes = [image.size for image, e in zip(prepared, errors, strict=True) if e is None]
                yield partial(self._rows.batch, first + start, ids, errors, explanation, sizes)

        return ahead(self._pool, explained(), made)

    def _explain(self, prepared: list[Prepared], errors: list[str | None]) -> Explanation | None:
        """The explanation of the good images; one that is not finite becomes an error."""
        good = [i for i, image in enumerate(prepared) if image.error is None]
        if not good:
            return None
        explainer, recipe = self._explainer, self._recipe
        chosen = [prepared[i] for i in good]
        batch = stacked_frames([image.input for image in chosen if image.input is not None])
        signature = explainer.backend.signature
        targets = target_input(signature, recipe.target, len(good))
        inputs = stacked(signature, [image.inputs for image in chosen])
        photographs = np.zeros((len(good), 0, 0, 3), np.uint8)  # which no column shows
        explanation = explainer.explain_batch(
            batch, photographs, targets, recipe.temperature, self._batch_size, inputs
        )
        finite = explanation.finite()
        for i, fine in zip(good, finite, strict=True):
            if not fine:
                what = "logits" if explanation.is_of_class else "objective"
                errors[i] = f"the network's {what} or pullback for it are not finite"
        if not finite.any():
            return None
        return explanation[np.flatnonzero(finite)]


def on_gpu(recipe: Recipe) -> bool:
    """Whether the recipe's provider uses a GPU."""
    return recipe.provider in _GPU_PROVIDERS


def _usual(recipe: Recipe, most: int | None) -> int:
    size = _GPU_BATCH if on_gpu(recipe) else _BATCH
    return min(size, most or size)
