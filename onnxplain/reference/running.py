"""What ONNX Runtime makes of a network in time: a small file may hold a loop that never ends."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from onnxplain.errors import UnfinishedError

Array = npt.NDArray[Any]

SECONDS = 15.0


def run(
    session: onnxruntime.InferenceSession, names: Sequence[str] | None, given: Mapping[str, Array]
) -> list[Array]:
    """Some outputs of a session, or all.

    Raises:
        UnfinishedError: it has not ended after `SECONDS`.
        Exception: of any kind, where it does not run.
    """
    options = onnxruntime.RunOptions()
    late = threading.Timer(SECONDS, setattr, (options, "terminate", True))
    late.daemon = True
    late.start()
    try:
        return [np.asarray(y) for y in session.run(names, dict(given), options)]
    except Exception as error:
        if options.terminate:
            raise UnfinishedError(f"it has not ended after {SECONDS:g} s") from error
        raise
    finally:
        late.cancel()
