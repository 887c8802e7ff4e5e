"""The command `onnxplain verify`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from onnxplain.cli.app import command
from onnxplain.cli.console import err, out
from onnxplain.cli.options import AtLeast, Model, Precision, Provider, Weights
from onnxplain.contract.explain import LOGITS, PULLBACK
from onnxplain.errors import InputError


@command
def verify(
    model: Model,
    source: Annotated[
        str | None,
        typer.Option(
            help="The network it was exported from: efficientnet-lite0 or a torchvision name."
        ),
    ] = None,
    weights: Weights = "DEFAULT",
    image: Annotated[
        list[str] | None, typer.Option(help="Images to compare on; else seeded noise.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest relative error.",
            show_default="against the reference 1e-4 for excitation, 3e-2 for methods with hard "
            "gates, which flip in float32 where float64's do not; against finite differences 1e-2, "
            "and ten times that along noise",
        ),
    ] = None,
    provider: Provider = "auto",
    precision: Precision = "float32",
    at_least: AtLeast = None,
) -> None:
    """Check an explain graph, or what runs it: exit status 0 if it is right, 1 if not.

    With --source, against the independent PyTorch reference in float64. Without, another provider
    or precision than ONNX Runtime's float32 on the CPU is checked against that; and on the CPU a
    `gradient` graph against finite differences of its own logits (no PyTorch needed).

    \b
        onnxplain verify resnet50.explain.onnx --source resnet50
        onnxplain verify resnet50.explain.onnx --provider openvino --precision bfloat16
        onnxplain verify classifier.explain.onnx
    """
    import numpy as np

    import onnxplain
    from onnxplain.reference.answers import compare as compared
    from onnxplain.reference.derivatives import finite_differences
    from onnxplain.reference.parity import Parity
    from onnxplain.runtime import find_images
    from onnxplain.runtime.inputs.batches import as_batch
    from onnxplain.runtime.sessions import preferred
    from onnxplain.runtime.verification import agreement as compare
    from onnxplain.runtime.verification import least_cosine, reference, sample

    if precision == "auto":
        raise InputError("verify checks one precision: name it, or see `onnxplain explain --help`")
    # `auto` has what it takes checked already, and would go past one that is wrong.
    name = next(preferred(precision), "cpu") if provider == "auto" else provider
    explainer = onnxplain.load(model, name, precision)
    metadata = explainer.metadata
    pre = metadata.preprocessing
    if image:
        batch, _ = as_batch(find_images(image), pre, np.dtype(np.float32))
        batch = np.moveaxis(batch, -1, 1) if pre.layout == "NHWC" else batch
    else:
        count = explainer.backend.signature.batch or 3
        shape = (count, pre.channels, pre.height, pre.width)
        batch = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    target = np.full((len(batch), 1) if explainer.multi_target else len(batch), -1)

    good = True
    table = Table("", "max |difference|", "relative error", "cosine", "")
    if source is not None:
        from onnxplain.export.sources.source import torch_network

        limit = tolerance or (1e-4 if metadata.parameters else 3e-2)
        network = torch_network(source, weights, (pre.height, pre.width))
        with err.status("running the PyTorch reference in float64"):
            found = compared(explainer, network.module, batch, target)
        for name, measured in found.items():
            passed = measured.relative_l2 <= limit
            good &= passed
            table.add_row(
                name,
                f"{measured.max_abs:.2e}",
                f"{measured.relative_l2:.2e}",
                f"{measured.cosine:.9f}",
                _verdict(passed),
            )
        title = f"against PyTorch in float64, {len(batch)} images, relative error ≤ {limit:g}"
    elif (name, precision) != ("cpu", "float32"):
        right = reference(model)
        with err.status("running ONNX Runtime on the CPU"):
            agreed = compare(explainer, right, sample(right, find_images(image) if image else None))
        least = least_cosine(explainer.backend.precision) if at_least is None else at_least
        table = Table("", "cosine", "")
        for kind, cosine in ((LOGITS, agreed.logits), (PULLBACK, agreed.pullback)):
            passed = cosine >= least
            good &= passed
            table.add_row(kind, f"{cosine:.9f}", _verdict(passed))
        backend = explainer.backend
        title = (
            f"{backend.name} on {backend.device} in {backend.precision} against ONNX Runtime on "
            f"the CPU in float32, {agreed.images} images, cosine ≥ {least:g}"
        )
    elif metadata.method == "gradient":
        limits = {"along the pullback": tolerance or 1e-2, "along noise": 10 * (tolerance or 1e-2)}
        with err.status("measuring finite differences"):
            measured_along = finite_differences(explainer, batch[:1], target[:1])
        for kind, derivatives in measured_along.items():
            passed = derivatives.relative_error <= limits[kind]
            good &= passed
            agreement = Parity.of(derivatives.predicted, derivatives.measured)
            table.add_row(
                f"{kind}, ≤ {limits[kind]:g}",
                f"{agreement.max_abs:.2e}",
                f"{derivatives.relative_error:.2e}",
                f"{agreement.cosine:.9f}",
                _verdict(passed),
            )
        title = "directional derivatives against finite differences of its own logits"
    else:
        raise InputError(
            f"a {metadata.method!r} graph is checked against the PyTorch reference: say which "
            "network it was exported from with --source (and --weights)"
        )
    table.title = f"{model}: {title}"
    out.print(table)
    if not good:
        raise typer.Exit(1)


def _verdict(passed: bool) -> str:
    return "[green]ok[/]" if passed else "[bold red]WRONG[/]"
