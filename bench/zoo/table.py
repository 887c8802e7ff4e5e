"""The zoo's results as a Markdown page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from onnxplain.bench.zoo.entry import COMPILED, METHODS
from onnxplain.bench.zoo.networks import FAMILIES, MORE
from onnxplain.bench.zoo.networks import networks as every

RELATIVE_L2, COSINE = 1e-3, 0.9999
"""The bounds of parity."""


def exact(tried: dict[str, Any]) -> bool:
    """Whether an exported graph agrees with the reference, within the bounds."""
    if tried["reason"] is not None:
        return False
    pullback = tried["pullback"]
    return bool(pullback["relative_l2"] <= RELATIVE_L2 and pullback["cosine"] >= COSINE)


def passes(entry: dict[str, Any]) -> bool:
    """Whether a network exports with every method and agrees with the reference."""
    return entry["reason"] is None and all(map(exact, entry["methods"].values()))


def markdown(results: dict[str, Any]) -> str:
    """The whole page: what it shows, the counts, the tables, the failures with their reasons."""
    networks: dict[str, Any] = results["networks"]
    torchvision = {name: e for name, e in networks.items() if not name.startswith("timm/")}
    families = {f"timm/{name}": family for family, name in FAMILIES.items()}
    timm = {name: e for name, e in networks.items() if name.startswith("timm/")}
    of_families = [e for name, e in timm.items() if name in families]
    machine = results["machine"]
    lines = [
        "# The zoo",
        "",
        "Untrained networks (seed 0; what starts as zeros or ones made random), exported with each "
        "method and compared with the float64 PyTorch reference on two images of noise. Made by "
        "`python -m onnxplain.bench.zoo run`, from "
        "[`bench/results/zoo.json`](../bench/results/zoo.json).",
        "",
        f"- torchvision: {_passed(torchvision.values())} of its classifiers",
        f"- timm: {_passed(of_families)} of its families",
        f"- named architectures within timm's families: "
        f"{_passed(e for name, e in timm.items() if name not in families)}",
        "",
        f"*Agreement* is a relative L2 ≤ {RELATIVE_L2:g} and a cosine ≥ {COSINE}. A column of a "
        "method gives the relative L2, ✗ where it is missed; the file's size and the seconds "
        "are those of the excitation graph ÷ the traced forward, and of its export besides the "
        f"trace. RTX: whether TensorRT-RTX's ahead-of-time compiler builds the {COMPILED} graph.",
        "",
        f"{machine['cpu']}, {machine['cores']} cores; onnxplain {results['onnxplain']}, "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
        "",
        "## torchvision",
        "",
        *_table(torchvision, {}),
        "",
        "## timm",
        "",
        *_table(timm, {**dict.fromkeys((f"timm/{name}" for name in MORE), ""), **families}),
        "",
        "## What did not work",
        "",
        *(list(_failures(networks)) or ["Everything worked."]),
        "",
        *_not_tried([name for name in every() if name not in networks]),
    ]
    return "\n".join(lines)


def _not_tried(names: Sequence[str]) -> list[str]:
    return ["## Not tried yet", "", ", ".join(names), ""] if names else []


def _passed(entries: Iterable[dict[str, Any]]) -> str:
    entries = list(entries)
    return f"{sum(map(passes, entries))} of {len(entries)}"


def _table(networks: dict[str, Any], families: dict[str, str]) -> Iterator[str]:
    columns = ["network", *(["family"] if families else []), "weights", "image"]
    columns += [*METHODS, "file", "export", "RTX"]
    yield "| " + " | ".join(columns) + " |"
    yield "| " + " | ".join("---" for _ in columns) + " |"
    for name, entry in sorted(networks.items()):
        cells = [name.removeprefix("timm/"), *([families.get(name, "")] if families else [])]
        if entry["reason"] is not None:
            cells += ["not traced", *[""] * (len(columns) - len(cells) - 1)]
        else:
            tried = [entry["methods"][method] for method in METHODS]
            cells += [f"{entry['parameters'] / 1e6:.1f} M", "×".join(map(str, entry["image"]))]
            cells += [_parity(t) for t in tried]
            cells += _cost(entry, entry["methods"][COMPILED])
            cells += [_mark(entry["methods"][COMPILED])]
        yield "| " + " | ".join(cells) + " |"


def _parity(tried: dict[str, Any]) -> str:
    if tried["reason"] is not None:
        return "✗"
    return f"{tried['pullback']['relative_l2']:.0e}" + ("" if exact(tried) else " ✗")


def _cost(entry: dict[str, Any], tried: dict[str, Any]) -> list[str]:
    if tried["reason"] is not None:
        return ["", ""]
    return [f"{tried['bytes'] / entry['forward_bytes']:.2f} ×", f"{tried['export_seconds']:.1f} s"]


def _mark(tried: dict[str, Any]) -> str:
    return "–" if tried["reason"] is not None else "✓" if tried["tensorrt"] is None else "✗"


def _failures(networks: dict[str, Any]) -> Iterator[str]:
    for name, entry in sorted(networks.items()):
        if entry["reason"] is not None:
            yield f"- **{name}** could not be traced: {entry['reason']}"
            continue
        for method, tried in entry["methods"].items():
            if tried["reason"] is not None:
                yield f"- **{name}**, {method}: {tried['reason']}"
            elif not exact(tried):
                p = tried["pullback"]
                yield (
                    f"- **{name}**, {method}: relative L2 {p['relative_l2']:.1e}, cosine "
                    f"{p['cosine']:.6f}"
                )
            if tried.get("tensorrt") is not None:
                yield f"- **{name}**, {method}, TensorRT-RTX: {tried['tensorrt']}"
