"""From a graph to an engine."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onnxplain.contract.explain import METHOD, Metadata
from onnxplain.files import scratch
from onnxplain.runtime.conversion import converted
from onnxplain.runtime.onnx_file import digest, read_metadata, read_ports
from onnxplain.runtime.sessions.tensorrt import compiler
from onnxplain.runtime.sessions.tensorrt.cache import cached
from onnxplain.runtime.sessions.tensorrt.engine import Engine, this_system
from onnxplain.runtime.sessions.tensorrt.monitor import Progress
from onnxplain.runtime.sessions.tensorrt.options import BuildOptions
from onnxplain.runtime.sessions.tensorrt.package import Package, load_package
from onnxplain.runtime.sessions.tensorrt.profile import TARGETS, Profile, Shapes
from onnxplain.runtime.signature import Port, Signature

_NUMPY = {"FLOAT": "float32", "HALF": "float16", "INT64": "int64", "UINT8": "uint8"}

_FORMAT = 2  # to be raised when the same graph is compiled otherwise than before

_building = threading.Lock()  # the compilers take as much memory as there is, and log to one place


def build_engine(path: Path, **options: Any) -> Engine:
    """Compile an explain graph, or take the engine compiled from the same graph before.

    Args:
        path: an ONNX file written by `onnxplain.export`.
        options: those of `compile_graph`.

    Raises:
        BackendError: not an explain graph; and as `compile_graph`.
    """
    Signature.of(read_metadata(path), *read_ports(path))
    return compile_graph(path, **options)


def compile_graph(
    path: Path,
    *,
    provider: str = "tensorrt-rtx",
    sm: Sequence[int] | None = None,
    precision: str = "float32",
    batches: Sequence[int] | None = None,
    targets: Sequence[int] = TARGETS,
    sizes: Mapping[str, int] = MappingProxyType({}),
    refittable: bool = False,
    portable: bool = False,
    keep: bool = True,
    progress: Progress | None = None,
) -> Engine:
    """Compile any graph, or take the engine compiled from the same graph before.

    Args:
        path: an ONNX file.
        provider: "tensorrt-rtx", on any machine, for every GPU in `sm`; or "tensorrt", for the
            GPU of this one.
        sm: compute capabilities, 89 for 8.9; by default Ampere and later.
        precision: "float32"; "tf32", whose products round to 10 bits; "float16" or "bfloat16",
            where the graph bears it; or "int8" for a network quantised already (QDQ), as it is.
        batches: the smallest, usual and largest number of images; one number fixes it. By default
            1, 8 and 64; and 1 of a graph that takes photographs.
        targets: the same for the targets per image of a graph exported with --multi-target.
        sizes: what open dimensions are, by name; these are fixed, and the batch may be one.
        refittable: let the weights be replaced (`TensorRT.refit`).
        portable: of "tensorrt": for any GPU from Ampere on, at some cost in speed.
        keep: take the engine from the cache, and leave it there.
        progress: called with the part that is done, 0 … 1.

    Raises:
        BackendError: the package is missing; no GPU where one is needed; a GPU that the package
            cannot build for; an operator that the compiler refuses; an open dimension that neither
            is the batch nor has a size.
    """
    package = load_package(provider)
    options = BuildOptions.of(package, sm, precision, refittable, portable)
    props = read_metadata(path)
    of_image: tuple[Any, ...] = ()
    if METHOD in props:
        metadata = Metadata.from_props(props)
        of_image = metadata.preprocessing, metadata.pixels
    profile = Profile.of(batches, targets, sizes, *of_image)
    graph = digest(path)
    key = {
        "format": _FORMAT,
        "graph": graph,
        "package": [provider, package.version],
        "options": asdict(options),
        "profile": asdict(profile),
    }

    def build() -> Engine:
        return _built(package, path, graph, options, profile, progress)

    return cached(key, build) if keep else build()


def _built(
    package: Package,
    path: Path,
    graph: str,
    options: BuildOptions,
    profile: Profile,
    progress: Progress | None,
) -> Engine:
    with _building, scratch() as folder:
        ready = in_precision(path, options.precision, folder)
        builder, network, _parser = compiler.parse(package, ready)
        inputs = [network.get_input(i) for i in range(network.num_inputs)]
        outputs = [network.get_output(i) for i in range(network.num_outputs)]
        shapes = {t.name: profile.shapes(t) for t in inputs if -1 in tuple(t.shape)}
        ports = [{t.name: _port(t, shapes.get(t.name)) for t in end} for end in (inputs, outputs)]
        if options.precision == "int8":
            compiler.require_quantisers(package, network, path)
        config = compiler.configure(package, builder, shapes, options)
        payload = compiler.compiled(package, builder, network, config, progress)
    return Engine(
        provider=package.provider,
        version=package.version,
        sms=options.sms,
        gpu=options.gpu,
        system="" if package.ahead_of_time else this_system(),
        precision=options.precision,
        profile=shapes,
        refittable=options.refittable,
        graph=graph,
        metadata=read_metadata(path),
        inputs=ports[0],
        outputs=ports[1],
        payload=payload,
    )


def in_precision(path: Path, precision: str, folder: Path) -> Path:
    """The graph that computes in that precision: the networks here are strongly typed."""
    if precision in ("float32", "tf32"):
        return path
    ready = folder / path.name
    ready.write_bytes(converted(path, precision))
    return ready


def _port(tensor: Any, shapes: Shapes | None) -> Port:
    """As the engine declares it: what the profile fixes is no longer open."""
    least, _, most = shapes or (tensor.shape,) * 3
    shape = tuple(a if a == b != -1 else None for a, b in zip(least, most, strict=True))
    name = tensor.dtype.name
    return Port(_NUMPY.get(name, name.lower()), shape)
