"""Neuron search: one pass over the images, whose state is the table that it fills."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxplain.asking import check_source
from onnxplain.contract.channels import ChannelsMetadata, maximum, mean, position
from onnxplain.contract.explain import IMAGE, Metadata, Preprocessing
from onnxplain.errors import InputError
from onnxplain.files import scratch, writable
from onnxplain.runtime import onnx_file
from onnxplain.runtime.ahead import ahead
from onnxplain.runtime.inputs.batches import as_batch, filled
from onnxplain.runtime.inputs.images import load_image
from onnxplain.runtime.sessions import Session, check_provider, open_session
from onnxplain.vital.search.image_files import list_images, walk
from onnxplain.vital.search.ranking import ORDERS, Found, Photograph, Ranking
from onnxplain.vital.search.top_images import Failure, Search, TopImages

BATCH, BATCH_ON_GPU = 4, 32
_GPUS = ("cuda", "ort-tensorrt", "tensorrt", "tensorrt-rtx")
_BATCHES_AHEAD = 2  # decoded while one runs
_SECONDS_BETWEEN_SAVES = 15.0
_MOST_SAVING = 0.02  # share of the time, for large tables

Images: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""Image files and folders of them."""

Progress: TypeAlias = Callable[[int, int], object]
"""Called with how many images are done, including those of earlier runs, and how many there are."""


def top_images(
    source: Any,
    images: Images,
    *,
    layer: str | Sequence[str] = (),
    k: int = 9,
    by: str | None = None,
    patch: int | None = None,
    path: str | os.PathLike[str] | None = None,
    provider: str = "auto",
    batch: int | None = None,
    weights: str = "DEFAULT",
    example: Any = None,
    size: tuple[int, int] | None = None,
    listed: Callable[[int], object] = lambda count: None,
    progress: Progress = lambda done, images: None,
) -> TopImages:
    """Rank images, and a patch of each, for every channel of one or more layers, in one pass.

        found = top_images("resnet50", "photos/", layer="layer4", path="top-images.json")
        found.best(123)      # the paths of the images that excite channel 123 most

    An image's patch is what the channel's most active position sees of it, or with `patch` the
    best of those under a sliding window. Images are decoded while
    others run; only two numbers and a position per channel come back from the device, and memory
    does not grow with the number of images.

    With `path`, the table is saved from time to time. If the search is interrupted or killed,
    calling it again with the same arguments continues it, to the same table as without the
    interruption: each run of the graph always gets the same images. A finished table is returned
    at once.

    Args:
        source: a network as for `onnxplain.export`, or a `Subject` (see
            `onnxplain.vital.graphs.subject`), whose neuron's layer or else matched layers are
            searched; `layer`, `weights`, `example` and `size` are then ignored.
        images: files, and folders, which are searched recursively.
        layer: a layer's name, or several; if none is given, those that VITAL matches.
        k: images per channel.
        by: "max", a channel's greatest activation, or "mean", its mean over the positions. None
            is "mean" with `patch`, and "max" without.
        patch: the side in pixels of a window that slides over each image as the network sees it;
            every patch is resized to be the whole of its input, and the best one counts, that
            with the greatest mean: `by` cannot be "max". VITAL's is 64 of 224. None for the
            images as they are.
        path: the table to begin or to continue, JSON; None to keep it in memory only.
        provider: as for `onnxplain.runtime.sessions.open_session`.
        batch: images per run; None for 4, or 32 on a GPU, or what the network takes.
        listed: called with the number of images found so far.
        progress: called after each run.

    Raises:
        SourceError: the network cannot be read; no such layer (the message names the nearest).
        InputError: no image, or none that can be read; patches by "max"; a path that cannot be
            written; a table begun with another network, other images or other options.
        BackendError: the provider cannot be used.
    """
    by = check_search(images, k, by, patch, path, provider, batch)
    if isinstance(source, str | os.PathLike):
        check_source(source)
    from onnxplain.vital.graphs.channels import write_channels
    from onnxplain.vital.graphs.subject import Subject, read_subject

    if isinstance(source, Subject):
        subject = source
    else:
        names = [layer] if isinstance(layer, str) else layer
        subject = read_subject(source, weights=weights, example=example, size=size, layers=names)
    with scratch() as folder:
        graph = folder / "channels.onnx"
        write_channels(subject, graph, patch=patch)
        return rank(graph, images, k, by, path, provider, batch, listed, progress)


def check_search(
    images: Images,
    k: int,
    by: str | None,
    patch: int | None,
    path: str | os.PathLike[str] | None,
    provider: str,
    batch: int | None,
) -> str:
    """What images are ranked by, once it is known that the search can begin.

    Raises:
        InputError, BackendError: as `top_images`, of what can be told before the network is read.
    """
    if patch is not None and by == "max":
        raise InputError("patches are ranked by their means: leave out by='max', or the patch")
    by = by or ("max" if patch is None else "mean")
    _check_ranking(k, by, batch)
    check_provider(provider)
    if path is not None:
        writable(path)
    if not any(True for _ in walk(_inputs(images))):
        raise InputError("no image given")
    return by


def _check_ranking(k: int, by: str, batch: int | None) -> None:
    if k < 1 or (batch is not None and batch < 1):
        raise InputError("k and batch must be at least 1")
    if by not in ORDERS:
        raise InputError(f"no order {by!r}; choose one of {', '.join(ORDERS)}")


def _inputs(images: Images) -> list[str]:
    given = [images] if isinstance(images, str | os.PathLike) else images
    return [os.fspath(one) for one in given]


def rank(
    graph: Path,
    images: Images,
    k: int = 9,
    by: str = "max",
    path: str | os.PathLike[str] | None = None,
    provider: str = "auto",
    batch: int | None = None,
    listed: Callable[[int], object] = lambda count: None,
    progress: Progress = lambda done, images: None,
) -> TopImages:
    """The same by a graph that `onnxplain.vital.graphs.channels` wrote, with the runtime alone."""
    _check_ranking(k, by, batch)
    file = None if path is None else Path(path)
    inputs = _inputs(images)
    runner = open_session(graph, provider)
    own = ChannelsMetadata.from_props(runner.metadata)
    about = Metadata.from_props(runner.metadata)
    listing = list_images(inputs, listed)
    search = Search(
        source=about.source,
        graph=onnx_file.digest(graph),
        provider=runner.provider,
        batch=own.batch or batch or (BATCH_ON_GPU if runner.provider in _GPUS else BATCH),
        by=by,
        k=k,
        images=listing.count,
        listing=listing.digest,
    )
    empty = tuple(Ranking.empty(layer, by, k) for layer in own.layers)
    table = TopImages(search, about.preprocessing, empty)
    if file is not None:
        table = table.resumed(file)
    progress(table.done, listing.count)
    if table.done < listing.count:
        table = _searched(table, runner, own, inputs, file, progress)
    if len(table.failures) == table.search.images:
        reason = table.failures[0].reason
        raise InputError(f"none of the {listing.count} images can be used; the first: {reason}")
    return table


class _Decoded(NamedTuple):
    """An image, and the same as the network takes it, [C, H, W] or [H, W, C]."""

    photograph: Photograph
    input: NDArray[np.float32]


def _searched(
    table: TopImages,
    runner: Session,
    own: ChannelsMetadata,
    inputs: Sequence[str],
    path: Path | None,
    progress: Progress,
) -> TopImages:
    """The table with all the images that it does not have yet."""
    batch = table.search.batch
    saved, pause = _save(table, path)  # so that a path that cannot be written is known at once
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        remaining = itertools.islice(walk(inputs), table.done, None)
        decoding = (partial(_decoded, file, table.preprocessing) for file in remaining)
        decoded = ahead(pool, decoding, _BATCHES_AHEAD * batch)
        try:
            while chunk := list(itertools.islice(decoded, batch)):
                # One assignment: an interruption finds the table with all of a run, or nothing.
                table = _with(table, chunk, runner, own)
                progress(table.done, table.search.images)
                if time.monotonic() - saved > pause:
                    saved, pause = _save(table, path)
        finally:
            _save(table, path)
    if table.done != table.search.images:
        raise InputError("the images changed during the search; start it again")
    return table


def _save(table: TopImages, path: Path | None) -> tuple[float, float]:
    """Save a table that has a path: when that was, and how many seconds it is good for."""
    start = time.monotonic()
    if path is not None:
        table.save(path)
    end = time.monotonic()
    return end, max(_SECONDS_BETWEEN_SAVES, (end - start) / _MOST_SAVING)


def _decoded(file: str, pre: Preprocessing) -> _Decoded | Failure:
    try:
        picture = load_image(file)
        batch, _ = as_batch(picture, pre)
    except InputError as error:
        return Failure(file, str(error))
    return _Decoded(Photograph(file, *picture.size), batch[0])


def _with(
    table: TopImages,
    chunk: Sequence[_Decoded | Failure],
    runner: Session,
    own: ChannelsMetadata,
) -> TopImages:
    """The table with the images of one more run."""
    failures = [made for made in chunk if isinstance(made, Failure)]
    decoded = [made for made in chunk if isinstance(made, _Decoded)]
    found = _run(runner, own, [image.input for image in decoded]) if decoded else []
    finite = np.ones(len(decoded), bool)
    for layer in found:
        # A mean is not finite where an activation is not; a maximum may pass over NaN.
        finite &= np.isfinite(layer.maxima).all(axis=1) & np.isfinite(layer.means).all(axis=1)
    for i in np.flatnonzero(~finite):
        path = decoded[i].photograph.path
        failures.append(Failure(path, f"'{path}' gives NaN or infinite activations"))
    rankings = table.rankings
    if finite.any():
        photographs = [decoded[i].photograph for i in np.flatnonzero(finite)]
        rankings = tuple(
            ranking.merged(
                Found(layer.maxima[finite], layer.means[finite], layer.positions[finite]),
                photographs,
            )
            for ranking, layer in zip(rankings, found, strict=True)
        )
    return replace(
        table,
        rankings=rankings,
        done=table.done + len(chunk),
        failures=(*table.failures, *failures) if failures else table.failures,
    )


def _run(
    runner: Session, own: ChannelsMetadata, images: Sequence[NDArray[np.float32]]
) -> list[Found]:
    """The layers' activations for images; a network's fixed batch is filled up."""
    outputs = runner.run({IMAGE: filled(np.stack(images), own.batch or len(images))})
    taken = {name: array[: len(images)] for name, array in outputs.items()}
    return [
        Found(taken[maximum(i)], taken[mean(i)], taken[position(i)]) for i in range(len(own.layers))
    ]
