"""What a run will do, written down once: the recipe, the images, and how they make up shards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from onnxplain.batch.commit import Folder, durable, write_json
from onnxplain.batch.listing import Item
from onnxplain.errors import InputError
from onnxplain.reading import parsed
from onnxplain.version import __version__

_SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.string()),
        ("file", pyarrow.string()),
        ("offset", pyarrow.int64()),
        ("length", pyarrow.int64()),
        ("size", pyarrow.int64()),
        ("modified", pyarrow.int64()),
    ]
)


@dataclass(frozen=True)
class Recipe:
    """Everything that the table's content depends on, apart from the images.

    Attributes:
        model: SHA-256 of the explain graph or engine.
        provider, precision: what runs it.
        temperature: for a graph exported with --live-temperature; None for the file's own.
        target: a class index or name; negative from the top of the ranking; None where the
            objective has none.
        top: how many of the likeliest classes each row names.
        store: "pullback" (half floats) or "heatmap" (PNG).
        batch_size: images per run of the graph (runs of other sizes round differently); None leaves
            it to the provider.
        shard_size: images per file of the table.
        image_column: a table's; None to find it.
        onnxplain: its version.
        inputs: what the file's objective takes besides, by name, the same for all images; boxes in
            pixels of the images. Of what its estimator takes, the SHA-256.
    """

    model: str
    provider: str
    precision: str
    temperature: float | None
    target: int | str | None
    top: int
    store: str
    batch_size: int | None
    shard_size: int
    image_column: str | None
    onnxplain: str = __version__
    inputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A recipe for `images` images, in `shards` shards of `recipe.shard_size`, the last shorter.

    `listing` is the SHA-256 of the list of images.
    """

    recipe: Recipe
    images: int
    listing: str

    @property
    def shards(self) -> int:
        return -(-self.images // self.recipe.shard_size)

    def rows(self, shard: int) -> int:
        """How many images a shard has."""
        size = self.recipe.shard_size
        return min(size, self.images - shard * size)


def settle(
    folder: Folder,
    recipe: Recipe,
    items: Iterable[Item],
    progress: Callable[[int], object] = lambda count: None,
) -> Plan:
    """The folder's plan: written now, or the one that finished shards followed.

    Args:
        items: all images; they are listed again to resume, so that none is lost or added unnoticed.
        progress: called with the number of images listed so far.

    Raises:
        InputError: finished shards followed another recipe or list of images.
    """
    earlier = read_plan(folder) if any(folder.commits.glob("[0-9]*.json")) else None
    if earlier is not None:
        _check_recipe(folder, earlier.recipe, recipe)
    digest, count = hashlib.sha256(), 0

    def counted() -> Iterator[Item]:
        nonlocal count
        for item in items:
            digest.update(repr(tuple(item)).encode())
            count += 1
            progress(count)
            yield item

    if earlier is not None:
        _check_items(folder, counted())
        plan = Plan(recipe, count, digest.hexdigest())
        if plan != earlier:
            raise InputError(f"'{folder.listing}' is damaged; choose another folder")
        return plan
    with durable(folder.listing) as beside:
        _write_listing(beside, counted(), recipe.shard_size)
    plan = Plan(recipe, count, digest.hexdigest())
    folder.empty()
    write_json(folder.plan, {**asdict(plan), "shards": plan.shards})
    return plan


def read_plan(folder: Folder) -> Plan:
    """The plan that `settle` wrote.

    Raises:
        InputError: there is none, or it is another version's.
    """
    try:
        content = parsed(folder.plan.read_text("utf-8"))
        return Plan(Recipe(**content["recipe"]), content["images"], content["listing"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"'{folder.path}' has shards of a run whose plan cannot be read ({error}); "
            "choose another folder"
        ) from error


class Listing:
    """The planned images, from `listing.parquet`; each row group is a shard."""

    def __init__(self, path: Path) -> None:
        self._table = pyarrow.parquet.ParquetFile(path)

    def shard(self, number: int) -> list[Item]:
        rows = self._table.read_row_group(number).to_pylist()
        return [Item(**row) for row in rows]


def _write_listing(path: Path, items: Iterator[Item], shard_size: int) -> None:
    with pyarrow.parquet.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        while shard := list(islice(items, shard_size)):
            columns = dict(zip(_SCHEMA.names, zip(*shard, strict=True), strict=True))
            writer.write_table(pyarrow.table(columns, _SCHEMA), row_group_size=shard_size)


def _check_recipe(folder: Folder, earlier: Recipe, now: Recipe) -> None:
    before, after = asdict(earlier), asdict(now)
    changed = [name for name in after if after[name] != before[name]]
    if not changed:
        return
    if "model" in changed:
        said = "another model file"
    else:
        said = ", ".join(
            "other inputs" if name == "inputs" else f"{name} {before[name]!r}, not {after[name]!r}"
            for name in changed
        )
    raise InputError(
        f"'{folder.path}' was begun with {said}; to resume it give what it was begun with "
        f"(see {folder.plan}), or choose another folder"
    )


def _check_items(folder: Folder, items: Iterator[Item]) -> None:
    """Check that these are the planned images, in the same order."""
    table = pyarrow.parquet.ParquetFile(folder.listing)
    planned = (Item(**row) for batch in table.iter_batches() for row in batch.to_pylist())
    for before, now in zip_longest(planned, items):
        if before == now:
            continue
        if before is None or (now is not None and now.id != before.id):
            said = f"'{now.id}' is new" if before is None else f"'{now.id}' is not '{before.id}'"
        elif now is None:
            said = f"'{before.id}' is no longer there"
        else:
            said = f"'{before.id}' has changed"
        raise InputError(
            f"the images are not those that '{folder.path}' was begun with: {said}; give the same "
            "to resume, or choose another folder"
        )
