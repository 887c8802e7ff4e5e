"""What the thresholds of `onnxplain evaluate --against` are chosen by: `python -m
onnxplain.bench.drift`.

EfficientNet-Lite0, with its trained weights, against itself: in half precisions, quantised to int8,
and with the weights of one layer shuffled. The first two should pass and the last be found; int8 is
told as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnxplain.bench.markdown import markdown
from onnxplain.bench.packaged import PHOTOGRAPHS, write_photographs
from onnxplain.bench.progress import progress_bar
from onnxplain.evaluation.drift import Drift, compare
from onnxplain.export import export
from onnxplain.files import replacing, scratch
from onnxplain.machine import machine
from onnxplain.runtime import Explainer, load
from onnxplain.runtime.inputs.batches import as_batch

RESULTS = Path(__file__).with_name("results") / "drift.json"
NETWORK = "efficientnet-lite0"
METHODS: Mapping[str, Mapping[str, Any]] = {
    "excitation": {"temperature": 1.0},
    "gradient": {},
    "gradcam": {},
}
HALVES = {"float16": "cpu", "bfloat16": "openvino"}
"""Precision → the provider that has it."""

INT8 = "int8, per channel"
SHARES = (0, 0.25, 0.5, 0.75, 1)
"""Which of the layers are shuffled, one at a time, as shares of the way from first to last."""

LOW = 0.1
"""The quantile that the share of images that may drift speaks of."""


def measure(photographs: list[Path], folder: Path) -> Iterator[dict[str, Any]]:
    """A record for each method and change."""
    quantised = _quantised(photographs, folder)
    for method, options in METHODS.items():
        path = folder / f"{method}.onnx"
        export(NETWORK, path, method=method, **options)
        reference = load(path, "cpu")

        def record(change: str, new: Explainer, method: str = method) -> dict[str, Any]:
            drift = compare(new, reference, photographs)  # noqa: B023
            return {"method": method, "change": change, **_figures(drift)}

        for precision, provider in HALVES.items():
            yield record(precision, load(path, provider, precision))
        of_int8 = folder / f"{method}.int8.onnx"
        pre = reference.metadata.preprocessing
        export(quantised, of_int8, method=method, mean=pre.mean, std=pre.std, **options)
        yield record(INT8, load(of_int8, "cpu"))
        model = onnx.load(path)
        layers = [one for one in model.graph.initializer if _is_layer(one)]
        for share in SHARES:
            layer = layers[round(share * (len(layers) - 1))]
            own = layer.SerializeToString()
            values = numpy_helper.to_array(layer)
            mixed = np.random.default_rng(0).permutation(values.reshape(-1)).reshape(values.shape)
            layer.CopyFrom(numpy_helper.from_array(mixed, layer.name))
            onnx.save(model, folder / "shuffled.onnx")
            layer.ParseFromString(own)
            yield record(f"shuffled {layer.name}", load(folder / "shuffled.onnx", "cpu"))


def _is_layer(values: onnx.TensorProto) -> bool:
    return len(values.dims) > 1 and values.data_type == onnx.TensorProto.FLOAT


def _figures(drift: Drift) -> dict[str, Any]:
    return {
        "passed": drift.passed,
        "drifted": drift.share,
        **{
            name: {str(at): drift.quantile(name, at) for at in (0, LOW, 0.5)}
            for name in drift.thresholds
        },
    }


def _quantised(photographs: list[Path], folder: Path) -> Path:
    """The forward pass in QDQ format, by ONNX Runtime's quantiser, calibrated on the photographs
    themselves."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    from onnxplain.reference.forward import write_forward

    export(NETWORK, folder / "explain.onnx", method="gradient")
    explainer = load(folder / "explain.onnx", "cpu")
    forward = onnx.load(write_forward(folder / "explain.onnx", folder / "forward.onnx"))
    del forward.metadata_props[:]  # it explains no more
    pre = explainer.metadata.preprocessing
    batch, _ = as_batch([*map(str, photographs)], pre)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = iter(batch)

        def get_next(self) -> Any:
            image = next(self.images, None)
            return None if image is None else {"image": image[None]}

    path = folder / "int8.onnx"
    quantize_static(forward, path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
    return path


def drift_table(measured: Mapping[str, Any]) -> str:
    """By method and change: what nine images of ten are above, and the median; bold below the
    threshold."""
    least = measured["thresholds"]
    rows = []
    for one in measured["records"]:
        cells = []
        for name, bound in least.items():
            low, median = one[name][str(LOW)], one[name]["0.5"]
            text = f"{low:.2f}, {median:.2f}"
            cells.append(text if low >= bound else f"**{text}**")
        verdict = "passed" if one["passed"] else f"found: {one['drifted']:.0%}"
        rows.append([one["method"], one["change"].replace("_", "\\_"), *cells, verdict])
    header = ["method", "change", *(f"{name} ≥ {bound:g}" for name, bound in least.items()), ""]
    return (
        f"{markdown(header, rows)}\n\n{NETWORK}, {measured['photographs']} photographs of packages "
        "on which it was also calibrated."
    )


def main(path: Path = RESULTS) -> None:
    from onnxplain.evaluation.alike import MEASURES

    records = []
    with scratch() as folder, progress_bar() as progress:
        photographs = write_photographs(folder / "photographs")
        changes = len(METHODS) * (len(HALVES) + 1 + len(SHARES))
        task = progress.add_task("comparing", total=changes)
        for record in measure(photographs, folder):
            records.append(record)
            progress.advance(task)
    found = {
        "machine": machine(),
        "photographs": len(PHOTOGRAPHS),
        "thresholds": {name: one.least for name, one in MEASURES.items()},
        "records": records,
    }
    with replacing(path) as beside:
        beside.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
