"""What every session offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import BackendError
from onnxplain.options import check_type
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
            BackendError: `carried` or `also` names what the graph has not, or `times` is below 1;
                or the runtime failed, and the session can be used again. What `progress` raises is
                raised as it is.
            InputError: `times` is no whole number.
        """
        ...


class Backend(Session, Protocol):
    """A session of an explain graph, whose signature says what it takes and gives."""

    @property
    def signature(self) -> Signature:
        """Raises BackendError where the graph is another."""
        ...


def as_arrays(session: Session, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The inputs of a run, lists among them as arrays of the declared dtypes.

    Raises:
        BackendError: there are others than the graph has, or a list is no array.
    """
    if inputs.keys() != session.inputs.keys():
        raise BackendError(
            f"the graph's inputs are {', '.join(session.inputs)}, not {', '.join(inputs)}"
        )
    return {name: _as_array(name, inputs[name], port) for name, port in session.inputs.items()}


def _as_array(name: str, given: Any, port: Port) -> Any:
    if isinstance(given, np.ndarray) and given.dtype == np.int64:
        return given.view(np.int64)  # ONNX Runtime's are `long long`, which OpenVINO does not know
    if hasattr(given, "shape"):
        return given
    try:
        return np.asarray(given, port.dtype)
    except (TypeError, ValueError) as error:
        raise BackendError(f"'{name}' is no array of {port.dtype}: {error}") from error


def check_iteration(
    session: Session, carried: Mapping[str, str], times: int, also: Sequence[str]
) -> None:
    """Hold the arguments of `iterate` to what its graph has.

    Raises:
        BackendError: `times` is below 1, or a name is not that of an output or input.
        InputError: `times` is no whole number.
    """
    check_type("times", times, int)
    if times < 1:
        raise BackendError(f"a graph is run at least once, not {times} times")
    for what, names, known in (
        ("output", (*carried, *also), session.outputs),
        ("input", tuple(carried.values()), session.inputs),
    ):
        if wrong := [name for name in names if name not in known]:
            raise BackendError(
                f"the graph has no {what} {', '.join(wrong)}; its {what}s are {', '.join(known)}"
            )
