"""Put measured figures into a page: `python -m onnxplain.bench.readme RESULT.json PAGE`.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`, NAME being the JSON file's stem, so
no figure is typed in by hand; `PAGES` says which page shows what. With `docs/speed.md` go the
benchmark's own page and its plots.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxplain.bench.camera import camera_table
from onnxplain.bench.drift import drift_table
from onnxplain.bench.estimators.table import estimators_table
from onnxplain.bench.evaluation.table import agreement_table, time_table
from onnxplain.bench.gpu.table import gpu_table
from onnxplain.bench.launches import SIDES
from onnxplain.bench.launches import ratios as ratios_of_nodes
from onnxplain.bench.markdown import markdown
from onnxplain.bench.rivals.table import maps_table, rivals_sentence, rivals_tables
from onnxplain.bench.sizes import sizes_table
from onnxplain.bench.suite.ratios import ratios
from onnxplain.bench.suite.record import EAGER, KERNELS, Key, seconds, timed, where
from onnxplain.bench.trust.table import trust_tables
from onnxplain.bench.zoo.page import counts


def demo_table(measured: Mapping[str, Any]) -> str:
    """What `onnxplain demo` measured, as Markdown."""
    timings = measured["seconds, batch 1"]
    explain = timings["explain, ONNX Runtime"]["median"]
    rows = [
        [
            name,
            f"{t['median'] * 1e3:.1f} ms",
            f"{t['p95'] * 1e3:.1f} ms",
            f"{t['median'] / explain:.2f}",
        ]
        for name, t in timings.items()
    ]
    parity = [
        [name, f"{p['max_abs']:.1e}", f"{p['relative_l2']:.1e}", f"{p['cosine']:.9f}"]
        for name, p in measured["parity"].items()
    ]
    machine = measured["machine"]
    rounds = timings["explain, ONNX Runtime"]["repeats"]
    return "\n\n".join(
        [
            markdown(["batch 1", "median", "p95", "÷ our explain"], rows),
            markdown(
                ["against PyTorch, float64", "max difference", "relative L2", "cosine"], parity
            ),
            f"{measured['network']}, excitation, {rounds} interleaved rounds on "
            f"{machine['cpu']}, {machine['cores']} cores.",
        ]
    )


def ascents_table(measured: Mapping[str, Any]) -> str:
    """The predicted class's probability, and after five steps along either direction."""
    rows = []
    for photograph in dict.fromkeys(one["photograph"] for one in measured["explanations"]):
        one = next(o for o in measured["explanations"] if o["photograph"] == photograph)
        figures = ["probability"]
        figures += [f"probability after {name} ascent" for name in ("excitation", "gradient")]
        rows.append([photograph, one["target"], *(f"{one[figure]:.1%}" for figure in figures)])
    header = ["", "class", "before", "after, along the excitation pullback", "along the gradient"]
    return markdown(header, rows)


def precision_table(measured: Mapping[str, Any]) -> str:
    """What `onnxplain.bench.precision` measured: the pullback's cosine per provider."""
    records = measured["records"]
    columns = list(dict.fromkeys((r["provider"], r["precision"]) for r in records))
    found = {(r["network"], r["provider"], r["precision"]): r for r in records}
    rows = []
    for network in dict.fromkeys(r["network"] for r in records):
        here = [found.get((network, *column)) for column in columns]
        one = next(r for r in here if r)
        trained = ", trained" if one["trained"] else ""
        cosines = [f"{r['pullback cosine']:.7f}" if r else "" for r in here]
        rows.append([f"{network}{trained}", one["method"], *cosines])
    header = ["network", "method", *(" ".join(column) for column in columns)]
    return (
        f"{markdown(header, rows)}\n\nUntrained networks have random weights, which halves "
        "suit less."
    )


def bench_table(measured: Mapping[str, Any]) -> str:
    """What `onnxplain bench` measured: the ratios that are claimed, for each network and batch."""
    machine = measured["machine"]
    return (
        f"{_summary(measured)}\n"
        f"Excitation, {measured['threads']} threads each, medians of interleaved rounds on "
        f"{machine.get('gpu', machine['cpu'])}, {machine['cores']} cores."
    )


_PEERS: dict[Key, Key] = {
    ("pixels", "Captum Saliency"): ("explain", "cpu float32"),
    ("pixels", "Captum GuidedBackprop"): ("explain", "cpu float32"),
    ("pixels", "zennit GuidedBackprop"): ("explain", "cpu float32"),
    ("map", "pytorch-grad-cam GradCAM"): ("map", "cpu float32, Grad-CAM"),
}
"""Other packages' explanations → the explain graph of as many passes over the network."""


def peers_table(measured: Mapping[str, Any]) -> str:
    """What `onnxplain bench` measured of other packages, beside explain graphs of the same work."""
    record = measured["records"][0]
    medians = seconds(record)
    rows = []
    for (kind, peer), (same, engine) in _PEERS.items():
        theirs, ours = medians[kind, peer], medians[same, engine]
        what = "Grad-CAM" if same == "map" else "excitation"
        rows.append(
            [peer, f"{theirs * 1e3:.0f} ms", what, f"{ours * 1e3:.0f} ms", f"{theirs / ours:.2f} ×"]
        )
    header = [where(record), "median", "onnxplain, ONNX Runtime", "median", "÷"]
    machine = measured["machine"]
    device = machine.get("gpu", machine["cpu"])
    return (
        f"{markdown(header, rows)}\n\n"
        f"Float32, {measured['threads']} threads each, medians of {record['rounds']} interleaved "
        f"rounds on {device}, {machine['cores']} cores. The plain gradient and guided "
        "backpropagation take the passes that excitation takes; the gates differ."
    )


def bench_page(measured: Mapping[str, Any]) -> str:
    """A Markdown page with everything that explains each network."""
    parts = [
        "# Everything that explains, measured",
        "",
        "Made by `onnxplain bench` and `bench.readme`.",
    ]
    for record in measured["records"]:
        trained = "trained" if record["trained"] else "random weights"
        title = f"## {where(record)} ({trained}, {record['rounds']} rounds)"
        parts += ["", title, "", _candidates(record)]
    return "\n".join(parts) + "\n"


def launches_table(measured: Mapping[str, Any]) -> str:
    """What `onnxplain bench --launches` counted: what a GPU waits for at a batch of 1."""
    rows = []
    for one in measured["networks"]:
        found, kernels, layers = ratios_of_nodes(one), one["kernels"], one["layers"]
        nodes = [sum(one["nodes"].get(side, {}).values()) for side in SIDES]
        rows.append(
            [
                *(one["network"], one["method"]),
                *(str(count or "") for count in nodes),
                *(f"{found[side]:.2f}" if side in found else "" for side in SIDES[1:]),
                " : ".join(str(kernels[side]) for side in SIDES if side in kernels),
                " : ".join(str(layers[side]) for side in SIDES if side in layers),
            ]
        )
    header = ["network", "method", "forward's nodes", "explain's", "with onnxplain-kernels"]
    header += ["explain ÷ forward", "with onnxplain-kernels", "kernels launched"]
    return markdown([*header, "TensorRT-RTX's regions"], rows)


def kernels_table(measured: Mapping[str, Any]) -> str:
    """What `onnxplain bench` measured where onnxplain-kernels is installed: explain ÷ forward."""
    found = ratios(measured)
    rows = []
    for record in measured["records"]:
        engines = ("cpu float32", f"cpu float32{KERNELS}")
        rows.append(
            [
                where(record),
                *(f"{found[f'{where(record)}, {e}: explain ÷ forward']:.2f}" for e in engines),
            ]
        )
    return markdown(["explain ÷ forward", "", "with onnxplain-kernels"], rows)


def profile_tables(measured: Mapping[str, Any]) -> str:
    """What `onnxplain bench --profile` measured on ONNX Runtime: milliseconds by operator."""
    parts = []
    for network in dict.fromkeys(one["network"] for one in measured["profiles"]):
        found = {
            one["engine"]: one
            for one in measured["profiles"]
            if one["network"] == network and one["forward"]
        }
        parts += [f"### {network}", _operators(list(found.values()))]
    machine = measured["machine"]
    parts.append(
        f"Milliseconds at a batch of 1, {measured['threads']} thread, on {machine['cpu']}: "
        f"the least of each node's runs; operators below {_LEAST:.0%} are added up."
    )
    return "\n\n".join(parts)


_LEAST = 0.01
"""The share of an explanation's time from which an operator has a row of its own."""


def _operators(profiles: Sequence[Mapping[str, Any]]) -> str:
    """A row for each operator of one network, of the forward pass and of each explanation."""
    sides = [profiles[0]["forward"]]
    sides += [{op: sum(t.values()) for op, t in one["explain"].items()} for one in profiles]
    total = [sum(side.values()) for side in sides]
    most = {op: max(side.get(op, 0.0) for side in sides) for side in sides for op in side}
    shown = [op for op in sorted(most, key=lambda op: -most[op]) if most[op] > _LEAST * total[1]]
    rest = [sum(t for op, t in side.items() if op not in shown) for side in sides]
    rows = [[op, *(f"{side[op]:.2f}" if op in side else "" for side in sides)] for op in shown]
    rows.append(["the rest", *(f"{t:.2f}" for t in rest)])
    rows.append(["**all**", *(f"**{t:.1f}**" for t in total)])
    rows.append(["÷ forward", "", *(f"{t / total[0]:.2f}" for t in total[1:])])
    kernels = ["with onnxplain-kernels"] * (len(profiles) - 1)
    return markdown(["", "forward", "explain", *kernels], rows)


def serving_table(measured: Mapping[str, Any]) -> str:
    """What `onnxplain.bench.serving` measured: one client, and many."""
    rows = []
    for key, who in (
        ("one at a time", "1 client"),
        ("one at a time, a service set for it", "1 client, all cores on each request"),
        ("many", f"{measured['clients']} clients"),
    ):
        one = measured[key]
        times = [f"{1000 * one[p]:,.0f} ms" for p in ("p50", "p95", "p99")]
        answers = ", ".join(f"{n:,} × {status}" for status, n in one["statuses"].items())
        rows.append([who, f"{one['per_second']:.1f}", *times, answers])
    return markdown(["", "explanations per second", "p50", "p95", "p99", "answers"], rows)


def lake_sentence(measured: Mapping[str, Any]) -> str:
    """What `onnxplain.bench.lake` measured."""
    rate = measured["images per second"]
    few, many = (f"{n / 2**30:.2f} GiB" for n in measured["peak memory in bytes"].values())
    once = "once" if measured["every image once"] else "NOT once"
    equal = "equal to" if measured["equal to the uninterrupted run"] else "DIFFERENT from"
    return (
        f"{measured['images']:,} JPEGs on {measured['machine']['cores']} cores: "
        f"{rate['batch']:.1f} images per second, {measured['batch ÷ bare loop']:.2f} × a bare loop "
        f"over the runtime. Killed {len(measured['kills'])} times with SIGKILL and resumed: every "
        f"image {once}, {equal} the uninterrupted run. Peak memory of all processes {few} for a "
        f"fifth of the images, {many} for all."
    )


def signal_table(measured: Mapping[str, Any]) -> str:
    """What `onnxplain.bench.signal_throughput` measured: the SegNet autoencoder."""
    rows = [
        [
            f"{row['name']}, batch {record['batch']}",
            f"{row['images per second']:.2f}",
            f"{row['÷ PyTorch eager']:.2f}" if "parity" in row else "1.00",
            f"{row['parity']['relative_l2']:.1e}" if "parity" in row else "",
        ]
        for record in measured["records"]
        for row in record["rows"]
    ]
    return markdown(["", "images per second", "÷ PyTorch eager's", "relative L2 to it"], rows)


def visualisation_table(measured: Mapping[str, Any]) -> str:
    """What `onnxplain.bench.visualisation` measured: methods' pictures, as networks see them."""
    header = ["", "network", "pictures", "top-1", "top-5", "probability", "Fréchet distance"]
    rows = [
        [
            row["method"],
            row["network"],
            str(row["pictures"]),
            *(f"{row[key]:.0%}" for key in ("top1", "top5")),
            f"{row['probability']:.3f}",
            "" if row["distance"] is None else f"{row['distance']:.1f}",
        ]
        for row in measured["rows"]
    ]
    return markdown(header, rows)


def vital_steps_table(measured: Mapping[str, Any]) -> str:
    """What `onnxplain.bench.vital_steps` measured: steps of a feature visualisation."""
    rows = []
    for record in measured["records"]:
        for row in record["rows"]:
            neuron = (
                "a class" if record["neuron"] == "class" else f"a channel of {record['neuron']}"
            )
            rows.append(
                [
                    f"{record['network']}, {neuron}",
                    row["name"],
                    f"{1 / row['seconds per step']:.2f}",
                    f"{row['÷ PyTorch eager']:.2f}",
                ]
            )
    return markdown(["", "", "steps per second", "÷ PyTorch eager's"], rows)


def _summary(measured: Mapping[str, Any]) -> str:
    """A row for each network and batch: the ratios that are claimed."""
    found = ratios(measured)
    engines = [
        row["name"]
        for row in measured["records"][0]["rows"]
        if row["kind"] == "explain" and row["by"] == "onnxplain"
    ]
    rows = []
    for record in measured["records"]:
        cells = [
            found.get(f"{where(record)}, {engine}: {what}")
            for what in ("explain ÷ forward", "explain ÷ PyTorch eager's")
            for engine in engines
        ]
        rows.append([where(record), *("" if cell is None else f"{cell:.2f}" for cell in cells)])
    header = [
        "",
        *(f"explain ÷ forward, {engine}" for engine in engines),
        *(f"÷ PyTorch eager's explain, {engine}" for engine in engines),
    ]
    return markdown(header, rows) + "\n"


def _candidates(record: Mapping[str, Any]) -> str:
    eager = seconds(record).get(EAGER)
    rows = [
        [
            row["kind"],
            row["name"],
            f"{row['median'] * 1e3:.1f} ms",
            f"{row['p95'] * 1e3:.1f} ms",
            f"{eager / row['median']:.2f}" if eager else "",
            f"{row['cosine']:.6f}" if "cosine" in row else "",
            f"{row['memory_bytes'] / 2**20:.0f} MiB" if "memory_bytes" in row else "",
        ]
        for row in timed(record)
    ]
    rows += [
        [r["kind"], r["name"], r["problem"], "", "", "", ""]
        for r in record["rows"]
        if "problem" in r
    ]
    return markdown(
        ["", "", "median", "p95", "PyTorch eager's explain ÷ this", "cosine", "peak memory"], rows
    )


def zoo_counts(measured: dict[str, Any]) -> str:
    """How many of the zoo's networks export with every method and agree with the reference."""
    return "\n".join(counts(measured))


PAGES: dict[str, dict[str, Callable[[Any], str]]] = {
    "README.md": {
        "demo": demo_table,
        "zoo": zoo_counts,
        "bench": peers_table,
        "rivals": rivals_sentence,
        "gpu": gpu_table,
    },
    "docs/choose.md": {"demo": ascents_table},
    "docs/coming-from.md": {"rivals": maps_table},
    "docs/costs.md": {"kernels": kernels_table, "profile": profile_tables},
    "docs/differentiate.md": {"rivals": rivals_tables},
    "docs/evaluate.md": {"evaluation": agreement_table, "evaluation_time": time_table},
    "docs/inputs.md": {"sizes": sizes_table},
    "docs/drift.md": {"drift": drift_table},
    "docs/networks.md": {"zoo": zoo_counts},
    "docs/neurons.md": {"visualisation": visualisation_table, "vital_steps": vital_steps_table},
    "docs/parity.md": {"estimators": estimators_table},
    "docs/pictures.md": {"camera": camera_table},
    "docs/runtimes.md": {"precision": precision_table},
    "docs/serving.md": {"serving": serving_table, "lake": lake_sentence},
    "docs/signal.md": {"signal": signal_table},
    "docs/trust.md": {"trust": trust_tables},
    "docs/speed.md": {"bench": bench_table, "launches": launches_table},
}
"""What each page shows of which result, by the JSON file's stem."""


def main(result: str, page: str) -> None:
    """Put a result into a page; where it is one with plots, these too, beside the page."""
    name, at = Path(result).stem, Path(page)
    tables = next((t for key, t in PAGES.items() if at.match(key) and name in t), {})
    text = at.read_text()
    between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if name not in tables or not between.search(text):
        sys.exit(f"{page} has no <!-- {name} --> … <!-- /{name} -->")
    measured = json.loads(Path(result).read_text())
    at.write_text(between.sub(lambda m: f"{m[1]}{tables[name](measured)}\n{m[2]}", text))
    if tables[name] is bench_table:
        draw(measured, at.parent)
    if tables[name] is vital_steps_table:
        from onnxplain.bench.plots import plot_losses

        plot_losses(measured, at.parent / "vital-losses.webp")


def draw(measured: Mapping[str, Any], folder: Path) -> None:
    """The benchmark's page, `bench.md`, and its plots, `bench-….webp`."""
    from onnxplain.bench import plots

    (folder / "bench.md").write_text(bench_page(measured))
    first = measured["records"][0]
    plots.plot_latencies(first, folder / "bench-latencies.webp")
    plots.plot_costs(measured, folder / "bench-costs.webp")
    plots.plot_throughput(measured, first["network"], folder / "bench-throughput.webp")
    plots.plot_targets(measured, folder / "bench-targets.webp")


if __name__ == "__main__":
    main(*sys.argv[1:])
