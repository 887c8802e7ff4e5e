"""What `onnxplain.bench.rivals` found, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxplain.bench.markdown import markdown
from onnxplain.bench.rivals.packages import NAMES

_REFUSED, _WRONG = "refused", 1e-2


def rivals_tables(measured: Mapping[str, Any]) -> str:
    """A table of networks, and one of small graphs."""
    machine, versions = measured["machine"], measured["packages"]
    packages = ", ".join(f"{name} {versions[name]}" for name in NAMES)
    rounds = measured["records"][0]["rounds"]
    return "\n\n".join(
        [
            _networks(measured),
            f"{packages}; {measured['threads']} threads of ONNX Runtime's CPU provider on "
            f"{machine['cpu']}, medians of {rounds} interleaved rounds at a batch of one. The "
            "error is the relative L2 to PyTorch's gradient in float64, of the files evaluated in "
            "float64; mobilenet_v2's is that of the weights that PyTorch's exporter rounds, in "
            "both files.",
            _probes(measured),
        ]
    )


def rivals_sentence(measured: Mapping[str, Any]) -> str:
    """By how much the other's graphs are larger and slower, and how many graphs each has right."""
    ours, other = NAMES
    pairs = [{row["by"]: row for row in record["rows"]} for record in measured["records"]]
    right = [p for p in pairs if p[other].get("relative_l2", 1.0) <= _WRONG]
    more = sorted(p[other]["nodes"] / p[ours]["nodes"] for p in right)
    slower = sorted(p[other]["÷ onnxplain"] for p in right)
    probes = measured["probes"].values()
    passed = (f"{by} {sum(v[by] == 'right' for v in probes)}" for by in NAMES)
    return (
        f"{other} {measured['packages'][other]}, the gradient of {len(right)} networks that both "
        f"differentiate right: {more[0]:.1f} to {more[-1]:.1f} × our nodes, {slower[0]:.2f} to "
        f"{slower[-1]:.2f} × our time. Of {len(probes)} small graphs, each of one thing, right: "
        f"{', '.join(passed)}. {_maps_sentence(measured['maps'])}"
    )


def _maps_sentence(found: Mapping[str, Any]) -> str:
    """What the rival's map of a class costs, at each layer, beside Grad-CAM."""
    rows = (row for row in found["rows"] if row["method"] == "Recipro-CAM")
    times = ", ".join(
        f"{row['÷ onnxplain']:.2f} × at {row['side']} × {row['side']} features" for row in rows
    )
    return (
        f"OpenVINO-XAI's Recipro-CAM on {found['network']}, of all classes at once, beside the "
        f"time of our Grad-CAM of one class on OpenVINO: {times}."
    )


def maps_table(measured: Mapping[str, Any]) -> str:
    """OpenVINO-XAI's maps beside Grad-CAM."""
    found = measured["maps"]
    rows = [
        [
            f"{row['side']} × {row['side']}",
            f"{row['by']} {row['method']}",
            " × ".join(map(str, row["shape"])),
            f"{row['median'] * 1e3:.1f} ms",
            f"{row['÷ forward']:.2f} ×",
            f"{row['÷ onnxplain']:.2f} ×" if "÷ onnxplain" in row else "",
            f"{row['correlation']:.2f}" if "correlation" in row else "",
        ]
        for row in found["rows"]
    ]
    header = ["features", "", "gives", "median", "÷ forward", "÷ Grad-CAM", "correlation to it"]
    forward = ", ".join(
        f"{by} {found['openvino'][by]}: {seconds * 1e3:.1f} ms"
        for by, seconds in found["forward"].items()
    )
    return (
        f"{markdown(header, rows)}\n\n{found['network']}, batch 1, float32, {found['threads']} "
        f"threads each on {found['machine']['cpu']}, {found['rounds']} interleaved rounds. The "
        f"forward pass, by OpenVINO ({forward}). Recipro-CAM gives the maps of all classes at "
        "once, Activation map one of none."
    )


def _networks(measured: Mapping[str, Any]) -> str:
    rows = []
    for record in measured["records"]:
        forward = record["forward"]
        for i, row in enumerate(record["rows"]):
            error = row.get("relative_l2")
            wrong = error is not None and error > _WRONG
            rows.append(
                [
                    record["network"] if i == 0 else "",
                    row["by"],
                    "yes" if row["open batch"] is None else _REFUSED,
                    *(
                        ["", "", _REFUSED, ""]
                        if error is None
                        else [
                            f"{row['nodes']} ({row['nodes'] / forward['nodes']:.1f} ×)",
                            f"{row['bytes'] / forward['bytes']:.2f} ×",
                            f"**wrong**, {error:.1e}" if wrong else f"{error:.1e}",
                            f"{row['÷ forward']:.1f} ×",
                        ]
                    ),
                    f"{row['÷ onnxplain']:.2f} ×" if error is not None else "",
                ]
            )
    return markdown(
        ["", "", "open batch", "nodes", "file", "error", "time ÷ forward", "÷ onnxplain"], rows
    )


def _probes(measured: Mapping[str, Any]) -> str:
    rows = [
        [name, *(_short(verdicts[package]) for package in NAMES)]
        for name, verdicts in measured["probes"].items()
    ]
    return markdown(["a graph of one thing", *NAMES], rows)


def _short(verdict: str) -> str:
    return _REFUSED if verdict.startswith(_REFUSED) else verdict
