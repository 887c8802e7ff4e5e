"""The table of a neuron search, in memory and as the JSON file that it is resumed from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from onnxplain.contract.channels import ChannelLayer
from onnxplain.contract.explain import Preprocessing
from onnxplain.errors import InputError
from onnxplain.files import replacing
from onnxplain.reading import parsed, text
from onnxplain.version import __version__
from onnxplain.vital.search.ranking import Patch, Photograph, Ranking


class Failure(NamedTuple):
    """An image that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Search:
    """Everything that a table depends on.

    Attributes:
        source: the network's name.
        graph: SHA-256 of the graph that was run, and so of the network's weights and the layers.
        provider: what ran it, in batches of `batch`; others round differently.
        by, k: the order, and how many images for each channel.
        images: how many images there are.
        listing: SHA-256 of their paths, sizes and modification times.
        version: onnxplain's.
    """

    source: str
    graph: str
    provider: str
    batch: int
    by: str
    k: int
    images: int
    listing: str
    version: str = __version__


@dataclass(frozen=True)
class TopImages:
    """The best images of each channel.

    Attributes:
        search: what the table depends on.
        preprocessing: how an image became the network's input.
        rankings: one for each layer.
        done: images seen so far; fewer than `search.images` if the search was interrupted.
        failures: the images that were left out.
    """

    search: Search
    preprocessing: Preprocessing
    rankings: tuple[Ranking, ...]
    done: int = 0
    failures: tuple[Failure, ...] = ()

    def best(self, channel: int, layer: str | None = None) -> list[Path]:
        """The images that excite a channel most, best first: k of them, or as many as there are.

        Raises:
            InputError: as `patches`.
        """
        return [Path(patch.photograph.path) for patch in self.patches(channel, layer)]

    def patches(self, channel: int, layer: str | None = None) -> list[Patch]:
        """The same images with their patches.

        Args:
            layer: its name; None if the table has only one.

        Raises:
            InputError: no such layer or channel.
        """
        return self.ranking(channel, layer).patches(channel, self.preprocessing)

    def ranking(self, channel: int, layer: str | None = None) -> Ranking:
        """The ranking of the layer, which must have that channel.

        Raises:
            InputError: no such layer or channel.
        """
        named = {ranking.layer.name: ranking for ranking in self.rankings}
        if layer is None and len(named) > 1:
            raise InputError(f"say which layer channel {channel} is of: {', '.join(named)}")
        if layer is not None and layer not in named:
            raise InputError(f"the layer {layer!r} was not searched, only {', '.join(named)}")
        ranking = next(iter(named.values())) if layer is None else named[layer]
        if not 0 <= channel < ranking.layer.channels:
            raise InputError(
                f"{ranking.layer.name!r} has no channel {channel}: they are 0 to "
                f"{ranking.layer.channels - 1}"
            )
        return ranking

    def save(self, path: Path) -> None:
        """Write the table, completely or not at all.

        It is plain JSON with a line per channel, which people and other tools can read. A number's
        shortest decimal gives back its exact bits, so that a search can be resumed from it.

        Raises:
            InputError: the path cannot be written.
        """
        with replacing(path) as beside, beside.open("w", encoding="utf-8") as file:
            self._write(file)

    @classmethod
    def load(cls, path: str | Path) -> TopImages:
        """Read a table, finished or not.

        Raises:
            InputError: no such file, or not a table of `onnxplain top-images`.
        """
        try:
            entries = parsed(text(path))
            search = Search(**entries["search"])
            pre = entries["preprocessing"]
            pre["mean"], pre["std"] = tuple(pre["mean"]), tuple(pre["std"])
            known: dict[Photograph, Photograph] = {}
            return cls(
                search,
                Preprocessing(**pre),
                tuple(_ranking(layer, search, known) for layer in entries["layers"]),
                entries["done"],
                tuple(Failure(*failure) for failure in entries["failures"]),
            )
        except OSError as error:
            raise InputError(f"'{path}' cannot be read: {error.strerror}") from error
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(
                f"'{path}' holds no table of `onnxplain top-images` that this version can read"
            ) from error

    def resumed(self, path: Path) -> TopImages:
        """The table at `path` that this one, still empty, continues; this one if there is no file.

        Raises:
            InputError: the file belongs to another search, or is not a table.
        """
        if not path.exists():
            return self
        earlier = TopImages.load(path)
        before, now = asdict(earlier.search), asdict(self.search)
        changed = [name for name in now if before[name] != now[name]]
        if not changed:
            return earlier
        raise InputError(
            f"'{path}' was begun with {_said(changed, before, now)}; give the same again to resume "
            "it, or choose another file"
        )

    def _write(self, file: TextIO) -> None:
        head = {
            "search": asdict(self.search),
            "preprocessing": asdict(self.preprocessing),
            "done": self.done,
            "failures": self.failures,
        }
        file.write(json.dumps(head, indent=1)[:-2] + ',\n "layers": [')
        for i, ranking in enumerate(self.rankings):
            layer = json.dumps(asdict(ranking.layer))[:-1]
            file.write("," * (i > 0) + f'\n  {layer}, "best": [')
            for j, line in enumerate(_lines(ranking, self.preprocessing)):
                file.write("," * (j > 0) + f"\n   {line}")
            file.write("\n  ]}")
        file.write("\n ]\n}\n")


def _lines(ranking: Ranking, pre: Preprocessing) -> Iterator[str]:
    """Each channel's patches as JSON."""
    for channel in range(ranking.layer.channels):
        yield json.dumps(
            [
                {
                    "path": patch.photograph.path,
                    "size": patch.photograph[1:],
                    "max": _shortest(patch.maximum),
                    "mean": _shortest(patch.mean),
                    "position": patch.position,
                    "box": patch.box,
                }
                for patch in ranking.patches(channel, pre)
            ]
        )


def _shortest(value: float) -> float:
    """The decimal with the fewest digits that is the same in single precision."""
    return float(str(np.float32(value)))


def _ranking(
    entries: Mapping[str, Any], search: Search, known: dict[Photograph, Photograph]
) -> Ranking:
    """A ranking from its JSON; equal photographs become one object, as in a search."""
    ranking = Ranking.empty(ChannelLayer.from_json(entries), search.by, search.k)
    for channel, patches in enumerate(entries["best"]):
        for place, patch in enumerate(patches):
            photograph = Photograph(patch["path"], *patch["size"])
            ranking.photographs[channel, place] = known.setdefault(photograph, photograph)
            ranking.maxima[channel, place] = patch["max"]
            ranking.means[channel, place] = patch["mean"]
            ranking.positions[channel, place] = patch["position"]
    return ranking


def _said(changed: list[str], before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if "graph" in changed:
        return "another network or other layers, or other patches"
    if "images" in changed or "listing" in changed:
        return "other images (or they have changed since)"
    return ", ".join(f"{name} {before[name]!r}, not {now[name]!r}" for name in changed)
