"""What ONNX Runtime makes of a network in time: a small file may hold a loop that never ends."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from onnxplain.errors import UnfinishedError
from onnxplain.runtime.sessions.onnx_runtime import options

Array = npt.NDArray[Any]

SECONDS = 15.0


def session_options() -> onnxruntime.SessionOptions:
    """Those of every session here: what is constant is computed by `run`, in time, and not while
    the session is made."""
    found = options.session_options()
    found.add_session_config_entry("optimization.disable_specified_optimizers", "ConstantFolding")
    return found


def run(
    session: onnxruntime.InferenceSession, names: Sequence[str] | None, given: Mapping[str, Array]
) -> list[Array]:
    """Some outputs of a session, or all.

    Raises:
        UnfinishedError: it has not ended after `SECONDS`; an operator that has begun is waited for.
        Exception: of any kind, where it does not run.
    """
    told = onnxruntime.RunOptions()
    late = threading.Timer(SECONDS, setattr, (told, "terminate", True))
    late.daemon = True
    late.start()
    try:
        return [np.asarray(y) for y in session.run(names, dict(given), told)]
    except Exception as error:
        if told.terminate:
            raise UnfinishedError(f"it has not ended after {SECONDS:g} s") from error
        raise
    finally:
        late.cancel()
