"""The file that says which class each image is of."""

from __future__ import annotations

import csv
from pathlib import Path

from onnxplain.errors import InputError
from onnxplain.reading import opened


def read_labels(path: Path) -> dict[str, str]:
    """The labels of a CSV file: a path, or its last parts, and a class's index or name a line.

    A first line `image,label` is passed over.

    Raises:
        InputError: it cannot be read, or a line has not two fields.
    """
    try:
        with opened(path) as file:
            text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"labels='{path}' is no text in UTF-8") from error
    except OSError as error:
        raise InputError(f"cannot read labels='{path}': {error.strerror or error}") from error
    labels = {}
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        fields = [field.strip() for field in row]
        if not any(fields) or (number == 1 and fields == ["image", "label"]):
            continue
        if len(fields) != 2 or not all(fields):
            raise InputError(
                f"labels='{path}', line {number}: an image's path and its class are asked for, "
                "separated by a comma"
            )
        labels[str(Path(fields[0]))] = fields[1]
    return labels
