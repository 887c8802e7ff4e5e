"""From an ONNX file to a model compiled by OpenVINO, and kept."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxplain.errors import BackendError
from onnxplain.runtime.cache import cache_folder, hashed, load, save
from onnxplain.runtime.conversion import without_functions
from onnxplain.runtime.onnx_file import digest, has_functions
from onnxplain.runtime.sessions.openvino.core import core
from onnxplain.runtime.sessions.openvino.one_image import keep_merged
from onnxplain.runtime.sessions.openvino.options import Shapes, full_name
from onnxplain.runtime.sessions.openvino.sorting import sort_across_channels
from onnxplain.runtime.sessions.openvino.stem import stem_in_float32
from onnxplain.runtime.sessions.openvino.strided import strided_by_phases
from onnxplain.runtime.sessions.openvino.weights import own_computed_weights

_FORMAT = 6  # to be raised when the same graph is compiled otherwise than before


def prepared(model: Any, precision: str, shapes: Shapes | None) -> Any:
    """The `openvino.Model` that is compiled in a precision, of the one that was read.

    Args:
        shapes: what the inputs' are fixed to; None leaves them as they are.
    """
    if shapes is not None:
        model.reshape({name: [-1 if n is None else n for n in shape] for name, shape in shapes})
        keep_merged(model)
    sort_across_channels(model)
    own_computed_weights(model)
    if precision != "bfloat16":
        return model
    strided_by_phases(model)
    return stem_in_float32(model)


def compiled(
    path: Path,
    contents: str,
    device: str,
    precision: str,
    config: Mapping[str, Any],
    shapes: Shapes | None,
) -> Any:
    """The `openvino.CompiledModel` for inputs of these shapes, or of those that the file has.

    Of the cache, if the same was compiled before, else compiled and kept; `contents` is the digest
    of the file as it was loaded.
    OpenVINO's own cache (2026.4) runs what it finds in a damaged file; so it is not used.

    Raises:
        BackendError: the device is missing or does not compute in this precision; the file is
            another by now, or one that OpenVINO cannot load.
    """
    import openvino

    how = [device, full_name(device, precision), precision, dict(config), shapes]
    key = [_FORMAT, contents, openvino.__version__, *how]
    kept = cache_folder("openvino") / f"{hashed(key)}.blob"
    try:
        if (blob := load(kept)) is not None:
            return core().import_model(blob, device, dict(config))
    except RuntimeError as error:
        warnings.warn(f"'{kept}' is not used and made anew: {error}", stacklevel=2)
    if digest(path) != contents:
        raise BackendError(f"'{path}' is no longer the file that was loaded: load it again")
    try:
        model = core().read_model(without_functions(path) if has_functions(path) else path)
        if precision == "int8" and not _quantised(model):
            raise BackendError(
                f"'{path}' is not quantised: quantise the network (QDQ), then export it"
            )
        made = core().compile_model(prepared(model, precision, shapes), device, dict(config))
    except (RuntimeError, MemoryError) as error:
        raise BackendError(f"OpenVINO cannot load '{path}': {error}") from error
    _keep(kept, made)
    return made


def _quantised(model: Any) -> bool:
    return any(node.get_type_name() == "FakeQuantize" for node in model.get_ops())


def _keep(path: Path, made: Any) -> None:
    try:
        blob: bytes = made.export_model().getvalue()
    except RuntimeError as error:
        warnings.warn(f"the compiled graph cannot be kept: {error}", stacklevel=2)
    else:
        save(path, blob)
