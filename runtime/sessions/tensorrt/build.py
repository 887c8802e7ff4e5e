"""From a graph to an engine."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, TypeAlias

from onnxplain.contract.explain import TARGET
from onnxplain.errors import BackendError
from onnxplain.runtime.cache import cache_folder, hashed, load, save
from onnxplain.runtime.conversion import converted
from onnxplain.runtime.onnx_file import digest, read_metadata, read_ports
from onnxplain.runtime.sessions.cuda_driver import gpu
from onnxplain.runtime.sessions.tensorrt.cache import KIND, cached
from onnxplain.runtime.sessions.tensorrt.engine import Engine, Shape, this_system
from onnxplain.runtime.sessions.tensorrt.monitor import Progress, watch
from onnxplain.runtime.sessions.tensorrt.package import Package, load_package
from onnxplain.runtime.signature import Port, Signature

PRECISIONS = ("float32", "tf32", "float16", "bfloat16", "int8")

BATCHES = (1, 8, 64)
TARGETS = (1, 2, 16)
"""The smallest, usual and largest number of images, and of targets for each of them."""

AMPERE_AND_LATER = (80, 86, 89, 120)
"""What `tensorrt_rtx` builds for when not told otherwise (its manual, "CPU-Only AOT")."""

_PORTABLE = (80, 86, 87, 89, 90, 100, 103, 110, 120, 121)
_NUMPY = {"FLOAT": "float32", "HALF": "float16", "INT64": "int64", "UINT8": "uint8"}

_TF32 = ("tf32", "bfloat16")
"""Precisions whose float32 products may round to TF32's 10 bits; bfloat16 itself has 7."""

_ADVICE = {
    "TopK": "TensorRT sorts 3,840 values at most: use --provider cuda or ort-tensorrt",
    "for Turing": "Leave out SM 75, or build with --precision float16",
    "QuantizeLinear": "TensorRT takes symmetric quantisers: quantize_static(…, "
    "extra_options={'ActivationSymmetric': True})",
}
"""Words of a refusal → what to do."""

_FORMAT = 1  # to be raised when the same graph is compiled otherwise than before

Shapes: TypeAlias = tuple[Shape, Shape, Shape]


@dataclass(frozen=True)
class Profile:
    """What open dimensions may be: each the smallest, usual and largest, or one number by name."""

    batches: tuple[int, int, int]
    targets: tuple[int, int, int]
    sizes: Mapping[str, int]

    def shapes(self, tensor: Any) -> Shapes:
        """The smallest, usual and largest shape of an input with open dimensions.

        Raises:
            BackendError: a dimension of unknown size.
        """
        sizes = []
        for axis, size in enumerate(tensor.shape):
            known = size if size != -1 else self.sizes.get(tensor.get_dimension_name(axis))
            if known is not None:
                sizes.append((known,) * 3)
            elif axis == 0:
                sizes.append(self.batches)
            elif tensor.name == TARGET:
                sizes.append(self.targets)
            else:
                raise BackendError(
                    f"dimension {axis} of the input '{tensor.name}' is open; TensorRT needs its "
                    "size: export the graph with --size"
                )
        least, usual, most = zip(*sizes, strict=True)
        return least, usual, most


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
    batches: Sequence[int] = BATCHES,
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
        batches: the smallest, usual and largest number of images; one number fixes it.
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
    if precision not in PRECISIONS:
        raise BackendError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    sms, name = _hardware(package, sm, refittable, portable)
    profile = Profile(_range(batches, "batch"), _range(targets, "targets"), dict(sizes))
    metadata = read_metadata(path)
    graph = digest(path)
    key = {
        "format": _FORMAT,
        "graph": graph,
        "package": [provider, package.version],
        "gpu": [name, *sms],
        "precision": precision,
        "profile": asdict(profile),
        "options": [refittable, portable],
    }

    def build() -> Engine:
        with _building, TemporaryDirectory(prefix="onnxplain-") as folder:
            ready = in_precision(path, precision, Path(folder))
            builder, network, _parser = _parse(package, ready)  # it owns the network's weights
            inputs = [network.get_input(i) for i in range(network.num_inputs)]
            outputs = [network.get_output(i) for i in range(network.num_outputs)]
            shapes = {t.name: profile.shapes(t) for t in inputs if -1 in tuple(t.shape)}
            ports = [
                {t.name: _port(t, shapes.get(t.name)) for t in end} for end in (inputs, outputs)
            ]
            if precision == "int8":
                _require_quantisers(package, network, path)
            config = _configure(package, builder, shapes, sms, precision, refittable, portable)
            payload = _compile(package, builder, network, config, progress)
        return Engine(
            provider=provider,
            version=package.version,
            sms=sms,
            gpu=name,
            system="" if package.ahead_of_time else this_system(),
            precision=precision,
            profile=shapes,
            refittable=refittable,
            graph=graph,
            metadata=metadata,
            inputs=ports[0],
            outputs=ports[1],
            payload=payload,
        )

    return cached(key, build) if keep else build()


def _hardware(
    package: Package, sm: Sequence[int] | None, refittable: bool, portable: bool
) -> tuple[tuple[int, ...], str]:
    """The compute capabilities to build for, and the model of GPU if it must be that one."""
    if package.ahead_of_time and portable:
        raise BackendError(
            "an engine of TensorRT-RTX runs on every GPU whose SM it was built for; name them "
            "instead of asking for a portable one"
        )
    if package.ahead_of_time and not refittable:
        sms = tuple(sorted(set(AMPERE_AND_LATER if sm is None else sm)))
        for wanted in sms:
            if wanted not in package.sms:
                raise BackendError(_no_such_sm(package, wanted))
        return sms, ""
    what = "a refittable engine" if refittable else "an engine of TensorRT"
    try:
        here = gpu()
    except BackendError as error:
        raise BackendError(f"{what} is built on the GPU that is to run it; {error}") from None
    if sm is not None and list(sm) != [here.sm]:
        raise BackendError(
            f"{what} is built on the GPU that is to run it ({here.name}, SM {here.sm}), not for SM "
            f"{', '.join(map(str, sm))}; --provider tensorrt-rtx builds others ahead of time"
        )
    if package.ahead_of_time:
        if here.sm not in package.sms:
            raise BackendError(_no_such_sm(package, here.sm))
        return (here.sm,), ""
    return (_PORTABLE, "") if portable else ((here.sm,), here.name)


def _no_such_sm(package: Package, wanted: int) -> str:
    known = ", ".join(map(str, package.sms))
    if wanted in (90, 100, 103):
        what = "Hopper" if wanted == 90 else "this Blackwell data-centre GPU"
        return (
            f"TensorRT-RTX is for RTX GPUs and does not build for SM {wanted} ({what}); it builds "
            f"for {known}. On such a GPU use --provider tensorrt or cuda"
        )
    return f"{package.title} does not build for SM {wanted}; it builds for {known}"


def _range(numbers: Sequence[int], what: str) -> tuple[int, int, int]:
    """(smallest, usual, largest)."""
    three = tuple(numbers) * (3 if len(numbers) == 1 else 1)
    if len(three) != 3 or not 1 <= three[0] <= three[1] <= three[2]:
        raise BackendError(
            f"the profile's {what} is one number, or the smallest, usual and largest in rising "
            f"order, from 1; not {', '.join(map(str, numbers)) or 'nothing'}"
        )
    return three


def in_precision(path: Path, precision: str, folder: Path) -> Path:
    """The graph that computes in that precision: the networks here are strongly typed."""
    if precision in ("float32", "tf32"):
        return path
    ready = folder / path.name
    ready.write_bytes(converted(path, precision))
    return ready


def _parse(package: Package, path: Path) -> tuple[Any, Any, Any]:
    """The builder, the network, and the parser."""
    trt = package.trt
    package.logger.words.clear()
    builder = trt.Builder(package.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, package.logger)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        raise BackendError(
            f"{package.title} cannot read the graph: "
            + _hint(" · ".join(dict.fromkeys(map(_refusal, errors))) or package.said())
        )
    return builder, network, parser


def _refusal(error: Any) -> str:
    if error.node_operator():
        where = f"operator {error.node_operator()}, node '{error.node_name()}': "
    else:
        where = f"{error.func()}: "  # the parser's function is called after the operator
    return where + " ".join(error.desc().split())


def _require_quantisers(package: Package, network: Any, path: Path) -> None:
    kinds = {network.get_layer(i).type for i in range(network.num_layers)}
    if package.trt.LayerType.DEQUANTIZE not in kinds:
        raise BackendError(
            f"'{path}' is not quantised: quantise the network (QDQ), then export it, then build"
        )


def _port(tensor: Any, shapes: Shapes | None) -> Port:
    """As the engine declares it: what the profile fixes is no longer open."""
    least, _, most = shapes or (tensor.shape,) * 3
    shape = tuple(a if a == b != -1 else None for a, b in zip(least, most, strict=True))
    name = tensor.dtype.name
    return Port(_NUMPY.get(name, name.lower()), shape)


def _configure(
    package: Package,
    builder: Any,
    shapes: Mapping[str, Shapes],
    sms: tuple[int, ...],
    precision: str,
    refittable: bool,
    portable: bool,
) -> Any:
    trt = package.trt
    config = builder.create_builder_config()
    if shapes:
        profile = builder.create_optimization_profile()
        for name, three in shapes.items():
            profile.set_shape(name, *three)
        config.add_optimization_profile(profile)
    if precision not in _TF32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if refittable:
        config.set_flag(trt.BuilderFlag.REFIT)
    if portable:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if package.ahead_of_time:
        config.num_compute_capabilities = len(sms)
        for i, sm in enumerate(sms):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{sm}"), i)
    return config


def _compile(
    package: Package, builder: Any, network: Any, config: Any, progress: Progress | None
) -> memoryview:
    keep_timings = _timings(package, config)
    with watch(package.trt, config, progress):
        built = builder.build_serialized_network(network, config)
    if built is None:
        raise BackendError(f"{package.title} cannot compile the graph: {_hint(package.said())}")
    keep_timings()
    return memoryview(built).cast("B")


def _hint(reason: str) -> str:
    """The reason, and what can be done about it where that is known."""
    for words, advice in _ADVICE.items():
        if words in reason:
            return f"{reason} · {advice}"
    return reason


def _timings(package: Package, config: Any) -> Callable[[], None]:
    """Let the compiler use what it measured in earlier builds; the rest keeps what it measures.

    `tensorrt_rtx` measures nothing while it builds.
    """
    if package.ahead_of_time:
        return lambda: None
    key = hashed({"package": package.version, "gpu": gpu().name})
    path = cache_folder(KIND) / f"{key}.timings"
    measured = config.create_timing_cache(load(path) or b"")
    if measured is None or not config.set_timing_cache(measured, ignore_mismatch=False):
        warnings.warn(
            f"the timing cache '{path}' cannot be used; it is being made anew", stacklevel=2
        )
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    return lambda: save(path, bytes(config.get_timing_cache().serialize()))
