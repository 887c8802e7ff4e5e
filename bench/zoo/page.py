"""The zoo's results as a Markdown page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from onnxplain.bench.zoo.entry import COMPILED, METHODS
from onnxplain.bench.zoo.maps import maps_section
from onnxplain.bench.zoo.networks import FAMILIES, MORE
from onnxplain.bench.zoo.networks import networks as every
from onnxplain.reference.parity import COSINE, RELATIVE_L2, Parity


def exact(tried: dict[str, Any]) -> bool:
    """Whether an exported graph agrees with the reference, in float32 or `right_in_float64`."""
    if tried["reason"] is not None:
        return False
    return Parity(**tried["pullback"]).agrees or right_in_float64(tried)


def right_in_float64(tried: dict[str, Any]) -> bool:
    """Whether a graph misses the bounds in float32 by rounding alone.

    In float64 it agrees, or is as near to the reference as the reference is to itself when its
    weights are rounded; and in float32 it points in the reference's direction: its cosine is within
    the bound.
    """
    again = tried.get("float64")  # only of a graph that misses the bounds in float32
    if not isinstance(again, dict):
        return False
    near = again["relative_l2"] <= ROUNDING_SPREAD * tried.get("rounding", 0.0)
    return (Parity(**again).agrees or near) and Parity(**tried["pullback"]).cosine >= COSINE


ROUNDING_SPREAD = 2.0
"""Times the largest of a few draws of rounded weights that another draw may be."""


def passes(entry: dict[str, Any]) -> bool:
    """Whether a network exports with every method and agrees with the reference."""
    return entry["reason"] is None and all(map(exact, entry["methods"].values()))


def stays(entry: dict[str, Any]) -> bool:
    """Whether all graphs of a network stay on the GPU under ONNX Runtime's CUDA provider."""
    return entry["reason"] is None and not entry["leaves"]


def markdown(
    results: dict[str, Any],
    claims: dict[str, Any] | None = None,
    maps: dict[str, Any] | None = None,
) -> str:
    """The whole page: what it shows, the counts, the tables, the failures with their reasons.

    Args:
        claims: the results of `onnxplain.bench.zoo claims`, if there are any.
        maps: those of `onnxplain.bench.zoo maps`.
    """
    networks: dict[str, Any] = results["networks"]
    torchvision = {name: e for name, e in networks.items() if not name.startswith("timm/")}
    families = {f"timm/{name}": family for family, name in FAMILIES.items()}
    timm = {name: e for name, e in networks.items() if name.startswith("timm/")}
    machine = results["machine"]
    asked = claims["networks"] if claims else {}
    lines = [
        "# The zoo",
        "",
        "Untrained networks (seed 0; weights that start as zeros or ones are made random), "
        "exported with each method and compared with the float64 PyTorch reference on two "
        "images of noise. Made by `python -m onnxplain.bench.zoo run`, from "
        "[`bench/results/zoo.json`](../bench/results/zoo.json).",
        "",
        *counts(results),
        "",
        *([_claimed(claims), ""] if claims else []),
        f"*Agreement* is a relative L2 ≤ {RELATIVE_L2:g} and a cosine ≥ {COSINE}. A method's "
        "column gives the relative L2, ✗ where agreement is missed; *file* is the size of the "
        "excitation graph ÷ that of the traced forward, and *export* the seconds that its "
        "export takes after the trace. RTX: whether TensorRT-RTX's ahead-of-time compiler "
        f"builds the {COMPILED} graph.",
        "",
        "A graph that misses these bounds is evaluated again in float64, and that figure "
        "follows the first. One that agrees there is *right in float64* and counts as agreement "
        f"where its cosine in float32 is ≥ {COSINE}: the gradient has hard gates, and one whose "
        "preactivation lies within float32's rounding of 0 may open in float32 and stay shut in "
        "float64. Where the rounding of the weights alone decides (batch norms are folded into "
        "them), *rounding* is given too: how far the PyTorch reference itself moves when its "
        "weights are changed by up to half a unit in float32's last place. A graph within "
        f"{ROUNDING_SPREAD:g} times that also counts.",
        "",
        f"{machine['cpu']}, {machine['cores']} cores; onnxplain {results['onnxplain']}, "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
        "",
        "## torchvision",
        "",
        *_table(torchvision, {}, asked),
        "",
        "## timm",
        "",
        *_table(timm, {**dict.fromkeys((f"timm/{name}" for name in MORE), ""), **families}, asked),
        "",
        *_section("Maps of timm's transformers", list(maps_section(maps)) if maps else []),
        "## What did not work",
        "",
        *([*_failures(networks), *_leaving(asked)] or ["Everything worked."]),
        "",
        *_section("Right in float64, off in float32", list(_rounded(networks))),
        *_section("Not tried yet", [", ".join(n for n in every() if n not in networks)]),
    ]
    return "\n".join(lines)


def counts(results: dict[str, Any]) -> list[str]:
    """How many networks pass, of each kind, as lines of a Markdown list."""
    networks: dict[str, Any] = results["networks"]
    families = {f"timm/{name}" for name in FAMILIES.values()}
    others = [e for n, e in networks.items() if n.startswith("timm/") and n not in families]
    torchvision = [e for n, e in networks.items() if not n.startswith("timm/")]
    return [
        f"- torchvision: {_passed(torchvision, 'its {} classifiers')}",
        f"- timm: {_passed([e for n, e in networks.items() if n in families], 'its {} families')}",
        f"- named architectures within timm's families: {_passed(others, 'the {} tried')}",
    ]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    """Nothing where there is nothing to say."""
    return [f"## {title}", "", *lines, ""] if any(lines) else []


def _passed(entries: Sequence[dict[str, Any]], what: str) -> str:
    """How many of the networks agree, and how many of these in float64 alone."""
    passed = [entry for entry in entries if passes(entry)]
    rounded = sum(any(map(right_in_float64, e["methods"].values())) for e in passed)
    counts = f"{len(passed)} of {what.format(len(entries))}"
    if not rounded:
        return counts
    return f"{counts}; for {rounded} of these, some method agrees only in float64"


def _table(
    networks: dict[str, Any], families: dict[str, str], asked: dict[str, Any]
) -> Iterator[str]:
    columns = ["network", *(["family"] if families else []), "weights", "image"]
    columns += [*METHODS, "file", "export", "RTX", "CUDA"]
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
            cells += [_mark(entry["methods"][COMPILED]), _stay(asked.get(name))]
        yield "| " + " | ".join(cells) + " |"


def _parity(tried: dict[str, Any]) -> str:
    if tried["reason"] is not None:
        return "✗"
    again = tried.get("float64")
    figure = f"{tried['pullback']['relative_l2']:.0e}"
    figure += f" (float64: {again['relative_l2']:.0e}" if isinstance(again, dict) else ""
    figure += f", rounding: {tried['rounding']:.0e}" if "rounding" in tried else ""
    figure += ")" if "(" in figure else ""
    return figure + ("" if exact(tried) else " ✗")


def _cost(entry: dict[str, Any], tried: dict[str, Any]) -> list[str]:
    if tried["reason"] is not None:
        return ["", ""]
    return [f"{tried['bytes'] / entry['forward_bytes']:.2f} ×", f"{tried['export_seconds']:.1f} s"]


def _mark(tried: dict[str, Any]) -> str:
    return "–" if tried["reason"] is not None else "✓" if tried["tensorrt"] is None else "✗"


def _stay(claim: dict[str, Any] | None) -> str:
    """How many graphs stay on the GPU, of those that were asked for."""
    if claim is None or claim["reason"] is not None:
        return ""
    left = len(claim["leaves"])
    return f"{claim['asked'] - left} of {claim['asked']} ✗" if left else f"✓ {claim['asked']}"


def _claimed(claims: dict[str, Any]) -> str:
    """What the column of claims says."""
    tried = [entry for entry in claims["networks"].values() if entry["reason"] is None]
    whole = [entry for entry in tried if stays(entry)]
    graphs = sum(entry["asked"] for entry in tried)
    variants = Counter(variant for entry in tried for variant in entry["variants"])
    ort = claims["machine"]["versions"].get("onnxruntime-gpu", "")
    kinds = ", ".join(f"{name.replace('_', '-')} of {n}" for name, n in variants.most_common())
    return (
        f"*CUDA* is how many explain graphs stay on the GPU as a whole under ONNX Runtime's "
        f"({ort}) CUDA provider, which is asked without a GPU: no node runs on the processor, no "
        "tensor is copied, and a session with CUDA graphs is made. Gradient, excitation, "
        f"semantic, gradcam and lrp-zplus, each in float32 and float16: so far of {len(tried)} "
        f"networks ({kinds}), {graphs} graphs; {len(whole)} networks stay. Made by "
        "`python -m onnxplain.bench.zoo claims`, from "
        "[`bench/results/claims.json`](../bench/results/claims.json). A class activation map is "
        "refused where no layer near the end has a spatial extent."
    )


def _leaving(asked: dict[str, Any]) -> Iterator[str]:
    for name, entry in sorted(asked.items()):
        if entry["reason"] is not None:
            yield f"- **{name}**, CUDA: {entry['reason']}"
            continue
        for case, what in entry["leaves"].items():
            yield f"- **{name}**, {case}, CUDA: {what}"


def _failures(networks: dict[str, Any]) -> Iterator[str]:
    for name, entry in sorted(networks.items()):
        if entry["reason"] is not None:
            yield f"- **{name}** could not be traced: {entry['reason']}"
            continue
        for method, tried in entry["methods"].items():
            if tried["reason"] is not None:
                yield f"- **{name}**, {method}: {tried['reason']}"
            elif not exact(tried):
                yield f"- **{name}**, {method}: {_figures(tried)}"
            if tried.get("tensorrt") is not None:
                yield f"- **{name}**, {method}, TensorRT-RTX: {tried['tensorrt']}"


def _rounded(networks: dict[str, Any]) -> Iterator[str]:
    for name, entry in sorted(networks.items()):
        for method, tried in entry.get("methods", {}).items():
            if right_in_float64(tried):
                yield f"- **{name}**, {method}: {_figures(tried)}"


def _figures(tried: dict[str, Any]) -> str:
    """Of the pullback in float32 and, where there is one, in float64."""
    figures, again = _agreement(tried["pullback"]), tried.get("float64")
    if again is None:
        return figures
    figures += f"; in float64 {again if isinstance(again, str) else _agreement(again)}"
    return figures + (f"; rounding {tried['rounding']:.1e}" if "rounding" in tried else "")


def _agreement(parity: dict[str, float]) -> str:
    return f"relative L2 {parity['relative_l2']:.1e}, cosine {parity['cosine']:.6f}"
