"""What every backend offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from onnxplain.runtime.signature import Signature


class Backend(Protocol):
    """An explain graph made ready to run; several threads may call it at once.

    `device` says where it runs ("CPU"), `precision` in what it computes ("float32").
    """

    name: str
    device: str
    precision: str
    signature: Signature

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The graph's outputs by name, for its inputs by name, of the declared dtypes and shapes.

        Raises:
            BackendError: the runtime failed; the backend can be used again.
        """
        ...

    def run_on_device(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The same for tensors on the device, none of which visits the host.

        Args:
            inputs: tensors on the device (`__dlpack__` or `__cuda_array_interface__`), contiguous;
                some may be numpy arrays.

        Returns:
            Tensors on the device, each with one of the two interfaces.

        Raises:
            BackendError: a tensor lies elsewhere; or the runtime failed, and can be used again.
        """
        ...

    def iterate(
        self,
        inputs: Mapping[str, NDArray[Any]],
        output: str,
        into: str,
        times: int,
        progress: Callable[[int], None] | None = None,
    ) -> NDArray[Any]:
        """Run `times` times, each with `output` of the run before as the input `into`.

        What goes from run to run stays on the device; the last `output` is returned. `progress`
        is called with 1, 2, … `times`.

        Raises:
            BackendError: the runtime failed; the backend can be used again.
        """
        ...
