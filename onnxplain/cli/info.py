"""The command `onnxplain info`."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from onnxplain.cli.app import Model, command, out, parameters_text


@command
def info(model: Model) -> None:
    """Show what an explain graph holds: method, source, inputs, outputs, preprocessing, cost."""
    import onnxplain

    explainer = onnxplain.load(model)
    metadata, signature = explainer.metadata, explainer.backend.signature
    pre, cost = metadata.preprocessing, metadata.multiply_adds
    batch = signature.batch or "N"
    sizes = [pre.channels, pre.height, pre.width]
    shape = ", ".join(map(str, sizes if pre.layout == "NCHW" else [*sizes[1:], sizes[0]]))
    targets = f"{batch}, K" if signature.multi_target else f"{batch}"
    inputs = [f"image {signature.dtype} [{batch}, {shape}]", f"target int64 [{targets}]"]
    if signature.live_temperature:
        inputs.append("temperature float32 []")
    table = Table(show_header=False, title=str(model), title_justify="left")
    for name, value in {
        "method": metadata.method + parameters_text(metadata.parameters),
        "source": f"{metadata.source}, exported by onnxplain {metadata.version}",
        "file": f"{model.stat().st_size / 2**20:.1f} MiB",
        "inputs": "\n".join(inputs),
        "outputs": f"logits [{batch}, {signature.classes}]\npullback [{targets}, {shape}]",
        "preprocessing": f"shorter side to {pre.resize} ({pre.interpolation}), "
        f"crop {pre.height} × {pre.width}\nmean {pre.mean}, std {pre.std}",
        "classes": f"{signature.classes}, "
        + (f"{metadata.labels[0]} … {metadata.labels[-1]}" if metadata.labels else "without names"),
        "multiply-adds": f"forward {cost['forward']:,}\nexplain {cost['explain']:,} "
        f"({cost['explain'] / max(cost['forward'], 1):.2f} ×)",
    }.items():
        table.add_row(name, escape(value))
    out.print(table, highlight=False)
