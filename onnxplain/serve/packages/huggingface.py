"""A repository for the Hugging Face hub: the graph, a picture, and a model card.

FOLDER/README.md   the card, whose figures are measured of the file
FOLDER/NAME.onnx   the explain graph
FOLDER/sample.png  an image, explained
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from onnxplain.contract.explain import Metadata
from onnxplain.files import size_on_disk
from onnxplain.reference.checks import Verification
from onnxplain.reference.verification import verify
from onnxplain.runtime import Explainer, load
from onnxplain.runtime.onnx_file import weights_beside
from onnxplain.serve.packages import new_folder
from onnxplain.version import __version__

SAMPLE = "sample.png"

TASKS = {
    "class": "image-classification",
    "segment": "image-segmentation",
    "detection": "object-detection",
    "embedding": "image-feature-extraction",
}
"""The objective's name → what the hub calls such a network's task."""

_CARD = Template("""\
---
$data
---

# $name

$source, as one standard ONNX file that computes its outputs and, in the same run, an explanation of
them by $method. Made by [onnxplain]($home) $version.

![An image and its explanation]($sample)

## Use it

```python
import onnxplain  # pip install onnxplain
from huggingface_hub import hf_hub_download

explainer = onnxplain.load(hf_hub_download("$repository", "$file"))
explanation = explainer("image.jpg")
explanation.save("why.png", style="overlay")
```

Or by ONNX Runtime alone:

```python
import onnxruntime

session = onnxruntime.InferenceSession("$file")
print([(one.name, one.shape) for one in session.get_inputs()])
```

| | |
| --- | --- |
$facts

## Is it right?

$parity

## What it says

An explanation says what this network reads in an image, not what the image shows: check it on
images of yours, and a new version against this one (`onnxplain evaluate NEW --against $file`),
before you rely on it.
""")
_HOME = "https://pypi.org/project/onnxplain/"


@dataclass(frozen=True)
class About:
    """What the card says and the file does not know.

    Attributes:
        identifier: on the hub, `owner/name`; the folder's name where it is not known yet.
        source: the network, as `onnxplain.verify` takes it, to measure the parity by.
        weights: of a source by name.
        license: of the network, as the hub names licenses.
        base_model: the network's own repository on the hub.
    """

    identifier: str | None = None
    source: Any = None
    weights: str = "DEFAULT"
    license: str | None = None
    base_model: str | None = None


def write_repository(graph: Path, folder: Path, sample: Path, about: About) -> Path:
    """Write it to a folder, which is moved into place as a whole; nothing is sent anywhere.

    Args:
        graph: an explain graph of images.
        sample: the image that is shown, explained.

    Returns:
        The card's path.

    Raises:
        InputError: the folder is there already, or the sample cannot be explained.
        SourceError: the source cannot be read.
        BackendError: as `onnxplain.load`.
        ModuleNotFoundError: huggingface_hub is not installed.
    """
    explainer = load(graph, "cpu")
    explainer.metadata.require_input("a model card")
    explanation = explainer(sample)
    measured = None
    if about.source is not None:
        measured = verify(graph, about.source, weights=about.weights, images=[sample])
    with new_folder(folder) as beside:
        for file in (graph, *weights_beside(graph)):
            copy = beside / file.resolve().relative_to(graph.parent.resolve())
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        explanation.save(beside / SAMPLE, style="grid")
        card = _card(explainer, graph, folder.name, about, measured)
        (beside / "README.md").write_text(card, encoding="utf-8")
    return folder / "README.md"


def _card(
    explainer: Explainer, graph: Path, name: str, about: About, measured: Verification | None
) -> str:
    from huggingface_hub import ModelCardData

    metadata = explainer.metadata
    data = ModelCardData(
        library_name="onnxplain",
        pipeline_tag=TASKS.get(metadata.objective.name),
        tags=["onnx", "onnxplain", "explainability", "saliency", metadata.method],
        license=about.license,
        base_model=about.base_model,
    )
    return _CARD.substitute(
        data=data.to_yaml().rstrip(),
        name=_cell(name),
        repository=about.identifier or name,
        source=_cell(metadata.source),
        method=_cell(metadata.described_method),
        home=_HOME,
        version=__version__,
        sample=SAMPLE,
        file=graph.name,
        facts=_table(_facts(explainer, graph, metadata).items()),
        parity=_parity(measured),
    )


def _facts(explainer: Explainer, graph: Path, metadata: Metadata) -> Mapping[str, str]:
    import onnx

    model = onnx.load(graph, load_external_data=False)
    nodes = [node.op_type for node in model.graph.node]
    pre, classes = metadata.preprocessing, explainer.backend.signature.classes
    facts = {
        "method": metadata.described_method,
        "explains": metadata.objective.name,
        "input": f"{pre.described}; mean {pre.mean}, std {pre.std}",
        "classes": str(classes) if metadata.objective.is_class else "",
        "size": f"{size_on_disk(graph) / 2**20:.1f} MiB",
        "graph": f"opset {max(one.version for one in model.opset_import)}, {len(nodes)} nodes of "
        f"{len(set(nodes))} operators",
        "written by": f"onnxplain {metadata.version}",
    }
    return {name: text for name, text in facts.items() if text}


def _parity(measured: Verification | None) -> str:
    if measured is None:
        return (
            "Not measured as this card was written: `onnxplain verify` compares the file with the "
            "network that it was made of."
        )
    rows = [
        (
            check.what,
            "" if check.relative_error is None else f"{check.relative_error:.1e}",
            f"{check.cosine:.9f}",
            check.bound,
            "yes" if check.passed else "**no**",
        )
        for check in measured.checks
    ]
    header = ("", "relative error", "cosine", "asked for", "kept")
    table = _table([header, ["---"] * len(header), *rows])
    return f"{measured.against}, on the image above:\n\n{table}"


def _table(rows: Any) -> str:
    return "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in rows)


def _cell(text: str) -> str:
    """Text from a file, which is no Markdown of its own."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")
