"""`onnxplain explain` of files that explain by other values than an image."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from onnxplain.cli.console import complain, say
from onnxplain.cli.options import as_target
from onnxplain.cli.records import free_stems, json_line
from onnxplain.errors import BackendError, InputError
from onnxplain.files import make_folder, replacing
from onnxplain.runtime.inputs.stored import stored
from onnxplain.runtime.inputs.values import as_values

if TYPE_CHECKING:
    from onnxplain.runtime import Explainer
    from onnxplain.runtime.inputs.scalars import Temperatures
    from onnxplain.runtime.values import ValuesExplanation

_PICTURE, _PULLBACKS = ".png", ".pullbacks.npz"


def explain_arrays(
    explainer: Explainer,
    files: Sequence[str],
    folder: Path,
    target: Sequence[str] | None,
    temperature: Temperatures,
    inputs: Mapping[str, Any],
) -> None:
    """Explain .npz files, each with the network's inputs by name: a picture and the pullbacks of
    each, and a JSON line in predictions.jsonl."""
    targets = [as_target(text) for text in target or []]
    if len(targets) > 1 and not explainer.multi_target:
        raise InputError("give one --target, or export with --multi-target")
    make_folder(folder)
    paths, failed = [Path(file) for file in files], 0
    stems = free_stems(paths, folder, [_PICTURE, _PULLBACKS])
    with (
        replacing(folder / "predictions.jsonl") as beside,
        beside.open("w", encoding="utf-8") as lines,
    ):
        for path, stem in zip(paths, stems, strict=True):
            try:
                given = as_values(explainer.backend.signature, _read(path))
                samples = len(next(iter(given.values())))
                each: Any = [targets] * samples if explainer.multi_target else None
                wanted = each if len(targets) > 1 else targets[0] if targets else None
                explanation = explainer(given, wanted, temperature, **inputs)
                picture = folder / f"{stem}{_PICTURE}"
                explanation.save(picture)
                _write(folder / f"{stem}{_PULLBACKS}", explanation.pullbacks)
                record = _record(path, picture, explanation)
            except (InputError, BackendError) as error:
                failed += 1
                complain(str(error))
                record = {"input": str(path), "error": str(error)}
            lines.write(json_line(record))
    say(f"{len(files) - failed} of {len(files)} files explained, in {folder}")
    if failed:
        raise typer.Exit(1)


def _read(path: Path) -> dict[str, Any]:
    """The arrays of a .npz file by name.

    Raises:
        InputError: it cannot be read, or is another.
    """
    try:
        found = stored(path)
    except InputError as error:
        raise InputError(
            f"{error}; this file explains arrays: save the network's inputs by name with "
            "numpy.savez"
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds one array, and no names: save the inputs with numpy.savez")
    return found


def _write(path: Path, arrays: Mapping[str, Any]) -> None:
    """What `numpy.savez` writes, also of arrays that are called as its own arguments are."""
    with replacing(path) as beside, zipfile.ZipFile(beside, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array))


def _record(path: Path, picture: Path, explanation: ValuesExplanation) -> dict[str, Any]:
    of_class = explanation.is_of_class
    scalars = explanation.target_probabilities if of_class else explanation.objective
    assert scalars is not None
    return {
        "input": str(path),
        "picture": str(picture),
        "objective": explanation.explained.name,
        "samples": [
            [
                {
                    "index": index,
                    "name": explanation.name(index),
                    "probability" if of_class else "value": value,
                }
                for index, value in zip(indices, values, strict=True)
            ]
            for indices, values in zip(
                explanation.targets.reshape(len(explanation), -1).tolist(),
                scalars.reshape(len(explanation), -1).tolist(),
                strict=True,
            )
        ],
    }
