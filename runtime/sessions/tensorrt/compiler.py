"""The calls of the compiler's API, and what its refusals mean."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onnxplain.errors import BackendError
from onnxplain.runtime.cache import cache_folder, hashed, load, save
from onnxplain.runtime.sessions.cuda_driver import gpu
from onnxplain.runtime.sessions.tensorrt.cache import KIND
from onnxplain.runtime.sessions.tensorrt.monitor import Progress, watch
from onnxplain.runtime.sessions.tensorrt.options import BuildOptions
from onnxplain.runtime.sessions.tensorrt.package import Package
from onnxplain.runtime.sessions.tensorrt.profile import Shapes

_TF32 = ("tf32", "bfloat16")
"""Precisions whose float32 products may round to TF32's 10 bits; bfloat16 itself has 7."""

_ADVICE = {
    "TopK": "TensorRT sorts 3,840 values at most: use provider='cuda' or provider='ort-tensorrt'",
    "for Turing": "Leave out SM 75, or build with precision='float16'",
    "QuantizeLinear": "TensorRT takes symmetric quantisers: quantize_static(…, "
    "extra_options={'ActivationSymmetric': True})",
}
"""Words of a refusal → what to do."""


def parse(package: Package, path: Path) -> tuple[Any, Any, Any]:
    """The builder, the network, and the parser, which owns the network's weights.

    Raises:
        BackendError: the parser refuses the graph.
    """
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


def require_quantisers(package: Package, network: Any, path: Path) -> None:
    kinds = {network.get_layer(i).type for i in range(network.num_layers)}
    if package.trt.LayerType.DEQUANTIZE not in kinds:
        raise BackendError(
            f"'{path}' is not quantised: quantise the network (QDQ), then export it, then build"
        )


def configure(
    package: Package,
    builder: Any,
    shapes: Mapping[str, Shapes],
    options: BuildOptions,
) -> Any:
    """The compiler's configuration."""
    trt = package.trt
    config = builder.create_builder_config()
    if shapes:
        profile = builder.create_optimization_profile()
        for name, three in shapes.items():
            profile.set_shape(name, *three)
        config.add_optimization_profile(profile)
    if options.precision not in _TF32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.refittable:
        config.set_flag(trt.BuilderFlag.REFIT)
    if options.portable:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if package.ahead_of_time:
        config.num_compute_capabilities = len(options.sms)
        for i, sm in enumerate(options.sms):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{sm}"), i)
    return config


def compiled(
    package: Package, builder: Any, network: Any, config: Any, progress: Progress | None
) -> memoryview:
    """The serialised engine.

    Raises:
        BackendError: the compiler refuses the graph.
    """
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
