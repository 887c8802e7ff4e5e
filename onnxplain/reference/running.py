"""What ONNX Runtime makes of a network in time: a small file may hold a loop that never ends."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
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

    It runs in a thread of its own, which is left behind where it does not end: ONNX Runtime looks
    at its order to stop between two operators, and one product of matrices may take minutes.

    Raises:
        UnfinishedError: it has not ended after `SECONDS`.
        Exception: of any kind, where it does not run.
    """
    told = onnxruntime.RunOptions()
    ended: Future[list[Any]] = Future()

    def work() -> None:
        try:
            ended.set_result(session.run(names, dict(given), told))
        except Exception as error:
            ended.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return [np.asarray(y) for y in ended.result(SECONDS)]
    except TimeoutError as error:
        told.terminate = True
        raise UnfinishedError(f"it has not ended after {SECONDS:g} s") from error
