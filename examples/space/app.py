"""A Hugging Face Space: a photograph in, the classes and the picture of why out, by one ONNX file.

The file is made by `onnxplain export NETWORK -o model.explain.onnx --preprocess --picture overlay
--topk 5`; nothing else of onnxplain is needed here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

MODEL = Path(__file__).with_name("model.explain.onnx")


class Model:
    """An explain graph that takes photographs and draws."""

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(path)
        entries = self.session.get_modelmeta().custom_metadata_map
        self.labels = json.loads(entries.get("onnxplain.labels", "[]"))
        self.method = entries["onnxplain.method"]

    def __call__(self, photograph: np.ndarray, rank: int) -> tuple[np.ndarray, dict[str, float]]:
        """Of uint8 [height, width, 3]: the picture for the class of that rank, from 1, and all of
        the likeliest classes with their probabilities."""
        feeds = {"image": photograph[None], "target": np.array([-rank])}
        names = ["picture", "top_classes", "top_probabilities"]
        picture, classes, probabilities = self.session.run(names, feeds)
        found = zip(classes[0].tolist(), probabilities[0].tolist(), strict=True)
        return picture[0], {self.named(i): p for i, p in found}

    def named(self, index: int) -> str:
        return self.labels[index] if index < len(self.labels) else str(index)


def page(model: Model) -> Any:
    """The page, which Gradio serves."""
    import gradio

    return gradio.Interface(
        model,
        [
            gradio.Image(label="A photograph", type="numpy"),
            gradio.Slider(1, 5, 1, step=1, label="Explain the class of rank"),
        ],
        [gradio.Image(label="Why"), gradio.Label(label="It sees")],
        title="Why does it say that?",
        description=f"By {model.method}, in one ONNX file.",
        flagging_mode="never",
    )


if __name__ == "__main__":
    page(Model(Path(sys.argv[1]) if len(sys.argv) > 1 else MODEL)).launch()
