"""The command `onnxplain info`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from onnxplain.cli.app import command
from onnxplain.cli.console import file_size, note, out, shown
from onnxplain.cli.options import Model
from onnxplain.contract.derivatives import Derivatives
from onnxplain.contract.estimator import Estimated
from onnxplain.contract.explain import ATTENTION, TARGET, Metadata
from onnxplain.contract.objective import CONCEPT_RELEVANCE, Explained
from onnxplain.contract.picture import PICTURE, TOP_CLASSES, TOP_PROBABILITIES
from onnxplain.contract.pixels import PHOTOGRAPH, PULLBACK_SCALE
from onnxplain.errors import BackendError, InputError
from onnxplain.files import scratch
from onnxplain.printable import one_line

if TYPE_CHECKING:
    from onnxplain.runtime import Backend
    from onnxplain.runtime.signature import Signature

_DRAWN = (PICTURE, TOP_CLASSES, TOP_PROBABILITIES)


def _kernels(model: Path) -> str:
    from onnxplain.runtime.onnx_file import kernel_calls
    from onnxplain.runtime.sessions.onnx_runtime.kernels import described, library

    calls = ", ".join(f"{count} {name}" for name, count in sorted(kernel_calls(model).items()))
    if not calls:
        return "none (export --kernels)"
    used = "run by" if library() else "run as standard operators;"
    return f"{calls}\n{used} {described()}"


def _on_cuda(model: Path) -> str:
    """What leaves the GPU under ONNX Runtime's CUDA provider."""
    from onnxplain.runtime.fake_cuda.ask import claims, surroundings

    with scratch() as folder:
        (found,) = claims([(model, "float32")], surroundings(folder))
    if isinstance(found, str):
        raise BackendError(found)
    nodes = found.nodes.total() - found.copies
    if found.whole:
        sizes = found.on_processor.total()
        stay = f"all {nodes} nodes stay on the GPU"
        if sizes:
            stay = (
                f"{nodes - sizes} of {nodes} nodes stay on the GPU; the others compute sizes on "
                "the processor, and none is copied"
            )
        return f"{stay}; CUDA graphs can be recorded"
    left = ", ".join(f"{count} {name}" for name, count in found.on_processor.most_common())
    return (
        f"{found.on_processor.total()} of {nodes} nodes run on the processor: {left}\n"
        f"{found.copies} copies between it and the GPU in each run; "
        + ("no CUDA graphs" if found.graph_refused else "CUDA graphs can be recorded")
    )


def _objective(explained: Explained) -> dict[str, str]:
    """What is explained, where it is no class's logit."""
    if explained.is_class:
        return {}
    chosen = ", ".join(f"{name} {value}" for name, value in explained.settings.items())
    target = explained.inputs.get(TARGET)
    lines = [explained.name, explained.why, chosen, target.meaning if target else ""]
    return {"objective": "\n".join(filter(None, lines))}


def _own_inputs(signature: Signature) -> list[str]:
    """The network's own."""
    values = signature.metadata.values
    if signature.metadata.pixels:
        return [f"image {signature.metadata.pixels.described}"]
    if not values:
        image = signature.metadata.preprocessing.described_shape
        return [f"image {signature.dtype} [{signature.batch or 'N'}, {image}]"]
    return [
        f"{name} {signature.inputs[name].dtype} [{', '.join(map(str, one.sizes))}]: {one.kind}"
        for name, one in values.inputs.items()
    ]


def _sizes(output: str, shape: tuple[int | None, ...], targets: str) -> str:
    """An output's. Those that are open have the letters of the inputs', or are unknown: `?`."""
    letters = ["N", *"?" * len(shape)][: len(shape)]
    if output in (PICTURE, CONCEPT_RELEVANCE):
        leading = targets.split(", ")
        letters[: len(leading)] = leading
    if output == PICTURE:
        letters[-3:-1] = "h", "w"
    return ", ".join(str(size or letter) for size, letter in zip(shape, letters, strict=True))


def _pullbacks(backend: Backend, targets: str) -> list[str]:
    metadata = backend.signature.metadata
    if not metadata.values:
        pre, pixels = metadata.preprocessing, metadata.pixels
        shape = [*map(str, metadata.pullback_shape)]
        sides = slice(0, 2) if pre.layout == "NHWC" else slice(1, 3)
        if pixels.geometry == PHOTOGRAPH:
            shape[sides] = "h", "w"
        elif pre.any_size:
            shape[sides] = "height", "width"
        dtype = f" {pixels.quantised}" if pixels.quantised else ""
        scale = [f"{PULLBACK_SCALE} [{targets}]"] if pixels.quantised else []
        return [f"pullback{dtype} [{targets}, {', '.join(shape)}]", *scale]
    return [
        f"{one.pullback} [{', '.join('?' if n is None else str(n) for n in shape)}]: by {name}"
        for name, one in metadata.values.explained.items()
        for shape in [backend.outputs[one.pullback].shape]
    ]


def _explained(metadata: Metadata) -> dict[str, str]:
    """How photographs become the input; or by what is explained instead."""
    if metadata.values:
        return {"explained by": metadata.values.described}
    pre, within = metadata.preprocessing, ", in the graph" if metadata.pixels else ""
    return {"preprocessing": f"{pre.described}{within}\nmean {pre.mean}, std {pre.std}"}


@command
def info(
    model: Model,
    provider: Annotated[
        str | None,
        typer.Option(
            help="cuda: also ask ONNX Runtime's CUDA provider which nodes it leaves to the "
            "processor. That needs no GPU, but onnxruntime-gpu, gcc and CUDA's headers."
        ),
    ] = None,
    patterns: Annotated[
        bool,
        typer.Option(
            help="List every nonlinear operation by its layer: those whose derivative the method "
            "replaces, and those that keep their ordinary one."
        ),
    ] = False,
) -> None:
    """Show what an explain graph holds: method, source, weights, inputs, outputs, preprocessing,
    cost, and the patterns found in the network (attention, GELU, …)."""
    import onnxplain
    from onnxplain.runtime.onnx_file import read_metadata

    if (found := Derivatives.find(read_metadata(model))) is not None:
        _show_derivatives(model, found)
        return
    if provider not in (None, "cuda"):
        raise InputError(f"--provider is cuda or left out, not {provider!r}")
    explainer = onnxplain.load(model, "cpu")
    metadata, signature = explainer.metadata, explainer.backend.signature
    cost = {"forward": 0, "explain": 0, **metadata.multiply_adds}
    batch = signature.batch or "N"

    targets = f"{batch}, K" if signature.multi_target else f"{batch}"
    inputs = _own_inputs(signature)
    inputs += [f"target int64 [{targets}]"] if signature.has_target else []
    inputs += [
        f"{name} [{', '.join(map(str, [batch, *one.shape]))}]: {one.meaning}"
        for name, one in signature.metadata.objective.inputs.items()
        if name != TARGET
    ]
    image = metadata.preprocessing.described_shape
    inputs += [
        f"{name} [{'B' if one.several else batch}, {image}]: {one.meaning}"
        for name, one in metadata.estimator.inputs.items()
    ]
    inputs += [f"{name} {signature.dtype} []" for name in signature.live]
    outputs = [
        f"{name} [{_sizes(name, port.shape, targets)}]" for name, port in signature.outputs.items()
    ]
    if signature.metadata.objective.is_class:
        others = [one for one in outputs if one.startswith((ATTENTION, CONCEPT_RELEVANCE, *_DRAWN))]
        outputs = [f"logits [{batch}, {signature.classes}]", *others]
    else:
        outputs.append(f"objective [{targets}]")
    on_cuda = {"on CUDA": _on_cuda(model)} if provider else {}
    table = Table(show_header=False, title=shown(model), title_justify="left")
    for name, value in {
        "method": metadata.described_method,
        "source": f"{metadata.source}, exported by onnxplain {metadata.version}",
        "weights": metadata.described_weights,
        "file": file_size(model),
        "inputs": "\n".join(map(one_line, inputs)),
        "outputs": "\n".join(map(one_line, [*outputs, *_pullbacks(explainer.backend, targets)])),
        **_objective(signature.metadata.objective),
        **_estimator(metadata.estimator),
        **_explained(metadata),
        "classes": f"{signature.classes}, "
        + (f"{metadata.labels[0]} … {metadata.labels[-1]}" if metadata.labels else "without names"),
        "patterns": ", ".join(f"{count} {name}" for name, count in metadata.patterns.items())
        or "none",
        "notes": "\n".join(metadata.notes) or "none",
        "kernels": _kernels(model),
        "multiply-adds": f"forward {cost['forward']:,}\nexplain {cost['explain']:,} "
        f"({cost['explain'] / max(cost['forward'], 1):.2f} ×)",
        **on_cuda,
    }.items():
        table.add_row(name, shown(value))
    out.print(table, highlight=False)
    if patterns:
        _list_patterns(metadata)


def _estimator(found: Estimated) -> dict[str, str]:
    if not found.name:
        return {}
    told = [f"{name}: {words}" for name, words in found.outputs.items()]
    return {"estimator": "\n".join([found.described, *told])}


def _show_derivatives(model: Path, found: Derivatives) -> None:
    """What `onnxplain differentiate` added to a file."""
    table = Table(show_header=False, title=shown(model), title_justify="left")
    for name, value in {
        "derivatives": f"of {', '.join(found.of)} by {', '.join(found.wrt)}",
        "source": f"{found.source}, differentiated by onnxplain {found.version}",
        "file": file_size(model),
        **{f"in  {name}": words for name, words in found.inputs.items()},
        **{f"out {name}": words for name, words in found.outputs.items()},
        "notes": "\n".join(found.notes) or "none",
    }.items():
        table.add_row(shown(name), shown(value))
    out.print(table, highlight=False)


def _list_patterns(metadata: Metadata) -> None:
    """Each nonlinear operation of the network with its layer."""
    table = Table("operation", "derivative", "layers", title="Patterns", title_justify="left")
    method = metadata.method
    for derivative, found in ((method, metadata.replaced), ("ordinary", metadata.ordinary)):
        for name, layers in sorted(found.items()):
            table.add_row(
                f"{len(layers)} {shown(name)}", shown(derivative), shown(", ".join(layers))
            )
    if not table.row_count:
        note(
            "the file names no nonlinear operation: it has none, or is older than such names; "
            "export it again to know"
        )
        return
    out.print(table, highlight=False)
