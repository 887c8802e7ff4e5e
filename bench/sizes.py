"""Files that take images of any size beside files of one size: the same pullbacks?

    python -m onnxplain.bench.sizes [NETWORK …] [--quick] [--again]

Each network is traced once with open sides, and once at each of `SIZES`; each trace is exported
with each method, and both files run on one image of noise on ONNX Runtime and OpenVINO. Writes
bench/results/sizes.json, each row as it is done; what is there is not measured again.
`python -m onnxplain.bench.readme bench/results/sizes.json docs/inputs.md` renders it. Some five
minutes a network; it may run on a busy machine.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torchvision
from torch import nn
from torchvision.models import MobileNetV3, ResNet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.resnet import BasicBlock
from torchvision.models.segmentation import FCN
from torchvision.models.segmentation.fcn import FCNHead

from onnxplain import load
from onnxplain.bench.markdown import markdown
from onnxplain.bench.over_networks import add_options, chosen, keep_row, known, measure
from onnxplain.bench.zoo.entry import awaken, sentence
from onnxplain.errors import SourceError
from onnxplain.export import export
from onnxplain.export.sources.source import from_module, torch_network
from onnxplain.files import scratch
from onnxplain.reference.parity import Parity

RESULTS = Path(__file__).resolve().parent / "results/sizes.json"

SIZES = ((224, 224), (191, 257), (320, 240))
METHODS = ("gradient", "excitation", "semantic", "gradcam", "lrp-zplus")
PROVIDERS = ("cpu", "openvino")

BOUND = 1e-4
"""Relative L2 beside the file of one size, up to which rounding accounts for it."""

NOT_MEASURED = "–"

_NAMES = (
    "squeezenet1_1",
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "alexnet",
    "efficientnet-lite0",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "regnet_y_400mf",
    "efficientnet_b0",
    "googlenet",
    "densenet121",
    "convnext_tiny",
    "vgg11",
)
_MAPS = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "fcn_resnet50")


def _named(name: str) -> nn.Module:
    return torch_network(name, "none").module


def _segmenting(name: str) -> nn.Module:
    module: nn.Module = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    return module


def _small_map() -> nn.Module:
    backbone = ResNet(BasicBlock, [1, 1, 1, 1], 10)
    return FCN(IntermediateLayerGetter(backbone, {"layer2": "out"}), FCNHead(128, 4))


Networks = Mapping[str, Callable[[], nn.Module]]

NETWORKS: Networks = {
    **{name: partial(_named, name) for name in _NAMES},
    **{name: partial(_segmenting, name) for name in _MAPS},
}

QUICK: Networks = {
    "a small MobileNet": lambda: MobileNetV3(
        [InvertedResidualConfig(8, 3, 16, 12, True, "HS", 2, 1, 1.0)], 24, num_classes=5
    ),
    "a small FCN": _small_map,
}
"""Small ones, for a look at whether all of it runs."""


def compare(
    name: str,
    make: Callable[[], nn.Module],
    methods: Sequence[str] = METHODS,
    sizes: Sequence[tuple[int, int]] = SIZES,
) -> Iterator[dict[str, Any]]:
    """One network's rows, one for each method and provider.

    Yields:
        Ready for JSON: "network", "method", "provider", "reason" (None, or why there is no figure),
        and "relative L2" of the pullback, by size ("191 × 257").
    """
    torch.manual_seed(0)
    module = make().eval()
    awaken(module)
    with scratch() as folder:
        try:
            opened = _traced(module, sizes[0], folder / "any.onnx", any_size=True)
            fixed = {size: _traced(module, size, folder / f"{size}.onnx") for size in sizes}
        except Exception as error:
            for method in methods:
                yield from (_row(name, method, p, sentence(error)) for p in PROVIDERS)
            return
        del module
        for method in methods:
            gc.collect()
            path, ours = folder / "any.explain.onnx", dict[tuple[int, int], Path]()
            try:
                _export(opened, path, method, size="any")
                for size, trace in fixed.items():
                    ours[size] = folder / f"{size}.explain.onnx"
                    _export(trace, ours[size], method)
            except SourceError as error:
                yield from (_row(name, method, p, str(error)) for p in PROVIDERS)
                continue
            yield from (_beside(name, method, p, path, ours) for p in PROVIDERS)


def _traced(module: nn.Module, size: tuple[int, int], path: Path, any_size: bool = False) -> Path:
    example = torch.zeros(2, 3, *size)
    model = from_module(module, example, classifier=None, any_size=any_size).model
    ir.save(model, path, external_data=f"{path.name}.data")
    return path


def _export(source: Path, path: Path, method: str, **options: Any) -> None:
    export(source, path, method=method, check=False, **options)


def _beside(
    name: str, method: str, provider: str, path: Path, fixed: Mapping[tuple[int, int], Path]
) -> dict[str, Any]:
    distances = dict[str, float]()
    try:
        whole = load(path, provider)
        for size, other in fixed.items():
            noise = np.random.default_rng(0).standard_normal((1, 3, *size), dtype=np.float32)
            found, expected = (explain(noise, 1) for explain in (whole, load(other, provider)))
            parity = Parity.of(found.pullback, expected.pullback)
            distances[" × ".join(map(str, size))] = parity.relative_l2
    except Exception as error:
        return _row(name, method, provider, sentence(error))
    return {**_row(name, method, provider), "relative L2": distances}


def _row(name: str, method: str, provider: str, reason: str | None = None) -> dict[str, Any]:
    return {"network": name, "method": method, "provider": provider, "reason": reason}


def sizes_table(measured: Mapping[str, Any]) -> str:
    """The worst relative L2 of the sizes by network, method and provider; bold above the bound."""
    found = {(r["network"], r["method"], r["provider"]): r for r in measured["rows"]}
    reasons = dict[str, int]()

    def cell(name: str, method: str) -> str:
        each = [found[key] for p in PROVIDERS if (key := (name, method, p)) in found]
        if len(each) < len(PROVIDERS):
            return NOT_MEASURED
        shown = [_shown(row, reasons) for row in each]
        return shown[0] if len(set(shown)) == 1 else " / ".join(shown)

    names = [name for name in NETWORKS if any(name == network for network, *_ in found)]
    rows = [[name, *(cell(name, method) for method in METHODS)] for name in names]
    versions = measured["machine"]["versions"]
    runtime = versions.get("onnxruntime", versions.get("onnxruntime-gpu"))
    parts = [
        markdown(["", *METHODS], rows),
        f"ONNX Runtime {runtime} / OpenVINO {versions['openvino']}.",
    ]
    left = [name for name in NETWORKS if name not in names]
    if left or any(NOT_MEASURED in row for row in rows):
        others = f"; nor were {', '.join(left)}" if left else ""
        parts.append(f"{NOT_MEASURED}: not measured{others}.")
    if reasons:
        parts.append("\n".join(f"{number}. {reason}" for reason, number in reasons.items()))
    return "\n\n".join(parts)


def _shown(row: Mapping[str, Any], reasons: dict[str, int]) -> str:
    if row["reason"]:
        return f"({reasons.setdefault(row['reason'], len(reasons) + 1)})"
    worst = max(row["relative L2"].values())
    shown = f"{worst:.0e}" if worst else "0"
    return shown if worst <= BOUND else f"**{shown}**"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="onnxplain.bench.sizes", description=__doc__)
    add_options(parser, quick="Small networks.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    networks = chosen(parser, given, NETWORKS, QUICK)

    def done(name: str, method: str) -> bool:
        kept = {_key(row) for row in known(given.out).get("rows", [])}
        return not given.again and all((name, method, p) in kept for p in PROVIDERS)

    measure(
        dict.fromkeys(networks, METHODS),
        done,
        lambda name, methods: compare(name, networks[name], methods),
        lambda row: keep_row(given.out, "rows", row, _key, _place),
        rows=len(PROVIDERS),
    )


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["network"], row["method"], row["provider"]


def _place(row: Mapping[str, Any]) -> tuple[int, int, int]:
    """By network, method and provider, as they are declared."""
    name, method, provider = _key(row)
    names = [*QUICK, *NETWORKS]
    return names.index(name), METHODS.index(method), PROVIDERS.index(provider)


if __name__ == "__main__":
    main()
