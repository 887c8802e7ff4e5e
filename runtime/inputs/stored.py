"""Arrays in files that numpy wrote."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import InputError
from onnxplain.reading import opened

_BEGINNINGS = (b"\x93NUMPY", b"PK")


def stored(path: str | os.PathLike[str]) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """The array of a .npy file, or those of a .npz file by name; no pickle is loaded.

    Raises:
        InputError: it cannot be read, or is another.
    """
    try:
        with opened(path) as regular:
            if not regular.read(6).startswith(_BEGINNINGS):  # which numpy takes for a pickle
                raise ValueError("numpy.save and numpy.savez write no such file")
            regular.seek(0)
            found = np.load(regular, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            return {name: found[name] for name in found.files}
    except OSError as error:
        raise InputError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from error
    except Exception as error:  # numpy and zipfile raise whatever a damaged file leads them to
        raise InputError(f"cannot read {os.fspath(path)}: {error}") from error
