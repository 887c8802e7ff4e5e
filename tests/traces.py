"""What takes long to make is made once per run, by the first worker that wants it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
import torch._export.utils as torch_operators
from filelock import FileLock
from torch.onnx._internal.exporter._registration import ONNXRegistry

from onnxplain.export.sources import source
from onnxplain.files import replacing
from onnxplain.runtime.cache import cache_folder
from onnxplain.vital.graphs.subject import Subject


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """While one makes the file, others who want it wait."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        yield


def once(file: Path, write: Callable[[Path], object]) -> Path:
    """The file, written by the first that asks for it."""
    with alone(file):
        if not file.is_file():
            with replacing(file) as beside:
                write(beside)
    return file


class _Described(pickle.Pickler):
    """A module's classes, attributes and the content of its tensors."""

    def persistent_id(self, thing: Any) -> Any:
        if not isinstance(thing, torch.Tensor):
            return None
        content = thing.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return str(thing.dtype), tuple(thing.shape), hashlib.sha256(content).hexdigest()


def _by_name(
    name: str,
    weights: str = "DEFAULT",
    size: Any = None,
    layers: Any = (),
    fold_norms: bool = True,
    any_size: bool = False,
) -> Any:
    known = weights in ("DEFAULT", "none")
    return (name, weights, size, fold_norms, any_size, *layers) if known else None


def _by_content(
    module: torch.nn.Module,
    example: Any,
    name: str,
    layers: Any = (),
    fold_norms: bool = True,
    classifier: bool | None = True,
    any_size: bool = False,
) -> Any:
    written = io.BytesIO()
    dtype = torch.get_default_dtype()
    try:
        _Described(written).dump(
            (module, example, name, tuple(layers), fold_norms, classifier, any_size, dtype)
        )
    except Exception:  # a class inside of a function, a hook, a parameter without content
        return None
    return written.getvalue()


def written_once(write: Callable[..., Any]) -> Callable[..., None]:
    """What writes a graph of VITAL's, of the same network and arguments once per run."""

    @functools.wraps(write)
    def call(subject: Subject, path: Path, *args: Any, **options: Any) -> None:
        model = ir.to_proto(subject.model).SerializeToString(deterministic=True)
        source = dataclasses.replace(subject.source, model=None)
        about = dataclasses.replace(subject, model=None, source=source)
        key = repr((write.__name__, model, about, args, options))
        name = f"{hashlib.sha256(key.encode()).hexdigest()}.onnx"
        file = once(cache_folder("made") / name, lambda new: write(subject, new, *args, **options))
        shutil.copyfile(file, path)

    return call


def _kept(function: Callable[..., Any], key_of: Callable[..., Any], folder: Path) -> Any:
    """The function, whose results with the same key are read from the folder."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        key = key_of(*args, **options)
        if key is None:
            return function(*args, **options)
        digest = hashlib.sha256(repr((function.__name__, key)).encode()).hexdigest()
        file = folder / f"{digest}.pickle"
        with alone(file):
            if not file.is_file():
                found = function(*args, **options)
                model = ir.to_proto(found.model).SerializeToString()
                without = {"original": None} if isinstance(found, source.Source) else {}
                described = dataclasses.replace(found, model=None, **without)
                with replacing(file) as beside:
                    beside.write_bytes(pickle.dumps((described, model)))
                return found
        found, model = pickle.loads(file.read_bytes())
        return dataclasses.replace(found, model=ir.from_proto(onnx.load_from_string(model)))

    return call


@contextmanager
def kept(folder: Path) -> Iterator[None]:
    """A network by name, or a module of the same class and content, is traced once per folder.

    PyTorch's exporter reads its table of translations and lists its operators anew at every export,
    for longer than a small network takes: here once.
    """
    with pytest.MonkeyPatch.context() as patched:
        table = functools.cache(ONNXRegistry.from_torchlib)
        patched.setattr(ONNXRegistry, "from_torchlib", staticmethod(table))
        listed = functools.cache(torch_operators._collect_all_valid_cia_ops_for_namespace)
        patched.setattr(torch_operators, "_collect_all_valid_cia_ops_for_namespace", listed)
        patched.setattr(source, "from_name", _kept(source.from_name, _by_name, folder))
        patched.setattr(source, "trace", _kept(source.trace, _by_content, folder))
        yield
