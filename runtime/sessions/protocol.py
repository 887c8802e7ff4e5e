"""What every session offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from onnxplain.runtime.signature import Port, Signature


class Session(Protocol):
    """A graph made ready to run: named inputs, named outputs. Several threads may call it at once.

    Its file must stay where it is: some runtimes compile it again for inputs of other shapes.

    Attributes:
        name: what runs it ("onnxruntime").
        provider: by which provider it was opened ("cpu").
        device: where it runs ("CPU").
        precision: in what it computes ("float32").
        metadata: the file's `metadata_props`.
        inputs, outputs: by name, in the graph's order.
    """

    name: str
    provider: str
    device: str
    precision: str
    metadata: Mapping[str, str]
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The graph's outputs by name, for its inputs by name, of the declared dtypes and shapes.

        Raises:
            BackendError: the runtime failed; the session can be used again.
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
        carried: Mapping[str, str],
        times: int,
        also: Sequence[str] = (),
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Run `times` times, at least once, carrying some outputs back to some inputs.

        What goes from run to run stays on the device.

        Args:
            inputs: of the first run.
            carried: output → the input that it is in the next run, of the same dtype and shape.
            also: further outputs that are wanted of the last run.
            progress: called with 1, 2, … `times`.

        Returns:
            The outputs `carried` and `also` of the last run, by name.

        Raises:
            BackendError: the runtime failed; the session can be used again.
        """
        ...


class Backend(Session, Protocol):
    """A session of an explain graph, whose signature says what it takes and gives."""

    @property
    def signature(self) -> Signature:
        """Raises BackendError where the graph is another."""
        ...
