"""Whatever goes wrong while a network is rewritten is said of the network."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from onnxplain.errors import OnnxplainError, SourceError


@contextmanager
def own_errors(done: str = "exported") -> Iterator[None]:
    """Whatever goes wrong within is said of the network, once: files hold graphs of every kind.

    Args:
        done: what the network cannot be.

    Raises:
        SourceError: any error that is not onnxplain's own.
    """
    log = logging.getLogger("onnx_ir")  # which would write the traceback besides
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    except OnnxplainError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise SourceError(
            f"the network cannot be {done}: {type(error).__name__} in {last.name} "
            f"({str(error).partition(chr(10))[0]}). If onnx.checker accepts it, please report it"
        ) from error
    finally:
        log.setLevel(level)
