"""Running the graphs of `onnxplain.signal.export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxplain.contract.explain import IMAGE
from onnxplain.contract.signals import SignalMetadata
from onnxplain.errors import BackendError, InputError
from onnxplain.runtime.onnx_file import read_metadata
from onnxplain.runtime.sessions import Session, open_session


@dataclass(frozen=True)
class Graph:
    """A graph ready to run: what its file says about it, and what runs it."""

    about: SignalMetadata
    session: Session

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The outputs by name for `images`, float32 [N, C, size, size] in [0, 1].

        Raises:
            InputError: pictures of another shape.
            BackendError: the runtime failed, or gave NaN or infinity.
        """
        wanted = (self.about.channels, self.about.size, self.about.size)
        if images.shape[1:] != wanted:
            raise InputError(
                f"the graph takes pictures of {list(wanted)}, not of {list(images.shape[1:])}"
            )
        found = self.session.run({IMAGE: images})
        for name, output in found.items():
            if not np.isfinite(output).all():
                raise BackendError(f"the graph's {name} for these pictures is NaN or infinite")
        return found


def open_graph(path: Path, provider: str = "auto", threads: int | None = None) -> Graph:
    """Load an autoencoder, a classifier, or one followed by the other.

    Args:
        path: an ONNX file that `onnxplain.signal.export` wrote.
        provider, threads: as for `onnxplain.runtime.sessions.open_session`.

    Raises:
        BackendError: no such file, or one of another kind; an unknown provider, or one that is
            missing.
    """
    about = SignalMetadata.from_props(read_metadata(path))
    return Graph(about, open_session(path, provider, threads))
