"""A run: settle the plan, explain what is not finished yet, and write the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.batch.cluster import connected, explained
from onnxplain.batch.commit import Folder, write_json
from onnxplain.batch.listing import Columns, list_items
from onnxplain.batch.plan import Plan, Recipe, settle
from onnxplain.batch.rows import STORES
from onnxplain.batch.shard import ENGINE, on_gpu
from onnxplain.batch.worker import Job, raise_problem
from onnxplain.contract.explain import TARGET, Metadata
from onnxplain.contract.pixels import PHOTOGRAPH
from onnxplain.contract.precision import precision_named
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime.inputs.estimator import decoded_once
from onnxplain.runtime.loading import digest_of, metadata_of
from onnxplain.runtime.sessions import PROVIDERS, check_provider
from onnxplain.runtime.sessions.tensorrt.engine import SUFFIX

_DECODERS_PER_GPU = 8


def _require_one_size(metadata: Metadata) -> None:
    """
    Raises:
        BackendError: the file explains no images, or gives pullbacks of several sizes.
    """
    metadata.require_image("a batch run")
    if metadata.pixels.geometry == PHOTOGRAPH:
        raise BackendError(
            "a table has pullbacks of one size, and this file gives each photograph's own: "
            "export the network again without geometry='photograph'"
        )


@dataclass(frozen=True)
class Options:
    """How to explain. The fields are those of `Recipe`, which says what they mean; without a target
    it is what the objective explains by itself."""

    target: int | str | None = None
    top: int = 5
    store: str = "pullback"
    temperature: float | None = None
    provider: str = "cpu"
    precision: str = "float32"
    batch_size: int | None = None
    shard_size: int = 256
    columns: Columns = field(default_factory=Columns)
    inputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pool:
    """Where to explain; none of this changes the result.

    Attributes:
        address: a Ray cluster's; None to start Ray on this machine.
        workers: processes; None for as many as there is room for, one per GPU.
        threads: per process. On a CPU, for running the graph and for decoding; 1 if None (several
            processes with one thread are faster than one with several). On a GPU, for decoding.
    """

    address: str | None = None
    workers: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Summary:
    """How many images there are, how many have an error, and how many earlier runs finished."""

    images: int
    errors: int
    earlier: int


def explain_lake(
    model: Path,
    inputs: Sequence[str],
    out: Path,
    options: Options = Options(),
    pool: Pool = Pool(),
    listed: Callable[[int], object] = lambda count: None,
    progress: Callable[[int, int], object] = lambda done, images: None,
) -> Summary:
    """Explain every image of the inputs into `out/table/`, each once; begin or resume.

    A shard is a fixed range of the listed images, and one file of the table. If the run is killed
    at any time, calling it again with the same arguments continues after the finished shards; the
    result is the same, to the byte, as that of a run that was not killed.

    Args:
        model: an explain graph, or an engine made by `onnxplain build`.
        inputs: as for `onnxplain.batch.listing.list_items`.
        out: a folder. If the workers are on several machines, all of them must have it under this
            name, like the model and the inputs.
        listed: called with the number of images found so far.
        progress: called with how many images are done, including earlier runs', and how many
            there are.

    Raises:
        InputError: inputs, options or an output folder that cannot be used; or a folder that was
            begun with other images, another model or other options.
        BackendError: a model, a backend or a cluster that cannot be used.
    """
    model, out = model.absolute(), out.absolute()
    metadata = metadata_of(model)
    _require_one_size(metadata)
    metadata.require_one_size("a batch run")
    own = _images(model, options)
    recipe = _recipe(model, options, own)
    folder = Folder(out)
    with folder.held():
        plan = settle(folder, recipe, list_items(inputs, options.columns), listed)
        pending = [shard for shard in range(plan.shards) if folder.committed(shard) is None]
        earlier = done = plan.images - sum(map(plan.rows, pending))
        progress(done, plan.images)
        if pending:
            job = Job(model, out, recipe, _threads(recipe, pool), own)
            with (
                connected(pool.address),
                closing(explained(job, pending, pool.workers, on_gpu(recipe))) as rows,
            ):
                for row in rows:
                    raise_problem(row)
                    done += int(row["rows"])
                    progress(done, plan.images)
        folder.clean()  # a worker may have died, and another finished its shard
        errors = _write_manifest(folder, plan)
    return Summary(plan.images, errors, earlier)


def _images(model: Path, options: Options) -> dict[str, NDArray[Any]]:
    """What the file's estimator takes, by name: no worker need have the files."""
    if not options.inputs:
        return {}
    metadata = metadata_of(model)
    given = decoded_once(metadata, options.inputs)
    return {name: given[name] for name in metadata.estimator.inputs if given.get(name) is not None}


def _recipe(model: Path, options: Options, images: Mapping[str, NDArray[Any]]) -> Recipe:
    """The options, checked as far as they can be without the backend."""
    if options.store not in STORES:
        raise InputError(f"no store '{options.store}'; choose one of {', '.join(STORES)}")
    if min(options.top, options.shard_size, options.batch_size or 1) < 1:
        raise InputError("top, shard_size and batch_size must be 1 or more")
    if model.suffix == SUFFIX:
        provider = ENGINE
    elif options.provider == "auto":
        raise InputError(
            "one provider explains all images of a table: name it with provider=, one of "
            f"{', '.join(PROVIDERS)}; `onnxplain doctor` says which are here"
        )
    else:
        check_provider(options.provider)
        provider = options.provider
    return Recipe(
        model=digest_of(model),
        provider=provider,
        precision=precision_named(options.precision),
        temperature=options.temperature,
        target=options.target if options.target is not None else _usual_target(model),
        top=options.top,
        store=options.store,
        batch_size=options.batch_size,
        shard_size=options.shard_size,
        image_column=options.columns.image,
        inputs={
            name: _digest(images[name]) if name in images else np.asarray(value).tolist()
            for name, value in options.inputs.items()
        },
    )


def _digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()


def _usual_target(model: Path) -> int | None:
    explained = metadata_of(model).objective
    if explained.is_class:
        return -1
    return int(explained.inputs[TARGET].default or 0) if TARGET in explained.inputs else None


def _threads(recipe: Recipe, pool: Pool) -> int:
    return pool.threads or (_DECODERS_PER_GPU if on_gpu(recipe) else 1)


def _write_manifest(folder: Folder, plan: Plan) -> int:
    """Write what the complete table consists of, and return the number of errors in it.

    Raises:
        BackendError: a shard is missing, or does not have the rows that were planned.
    """
    parts = []
    for shard in range(plan.shards):
        record = folder.committed(shard)
        if record is None or record.rows != plan.rows(shard):
            raise BackendError(f"shard {shard} is not whole in '{folder.path}'; run it again")
        parts.append(record)
    errors = sum(record.errors for record in parts)
    content = {
        "recipe": asdict(plan.recipe),
        "listing": plan.listing,
        "images": plan.images,
        "errors": errors,
        "parts": [asdict(record) for record in parts],
    }
    write_json(folder.manifest, content)
    return errors
