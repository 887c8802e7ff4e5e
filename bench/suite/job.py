"""What all candidates work on: one network's explain graphs, its images and the answer expected."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TEMPERATURES = {"efficientnet-lite0": 1.0}
TEMPERATURE = 0.3
SIZE = (224, 224)
LAYERS = {
    "resnet50": "layer4.2",
    "densenet121": "features.denseblock4",
    "efficientnet-lite0": "_bn1",
}
"""Where the activation maps of those networks are taken that have some in the benchmark."""


@dataclass(frozen=True)
class Job:
    """A network and a batch size on a device, with what `prepare` put into the folder.

    Attributes:
        network: a name of torchvision's, or efficientnet-lite0.
        threads: of the processor, for every candidate alike.
        device: "cpu" or "cuda".
    """

    network: str
    batch: int
    threads: int
    folder: Path
    device: str = "cpu"

    @property
    def temperature(self) -> float:
        return TEMPERATURES.get(self.network, TEMPERATURE)

    def graph(self, method: str = "excitation", targets: int = 1, kernels: bool = False) -> Path:
        """The explain graph of a method, for one target per image or for several; with the fused
        operations as calls, or in standard operators alone."""
        several = ".several" if targets > 1 else ""
        calls = ".kernels" if kernels else ""
        return self.folder / f"{self.network}.{method}{several}{calls}.onnx"

    @cached_property
    def images(self) -> NDArray[np.float32]:
        """Normalised photographs [batch, 3, height, width], the few there are again and again."""
        return self._repeated("images")

    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """The classes that the network finds in them, [batch]."""
        return self._repeated("targets")

    @cached_property
    def expected(self) -> NDArray[np.float64]:
        """The pullbacks by the float64 reference, of as many images as there are photographs."""
        return self._stored["pullback"][: self.batch]

    def several(self, count: int) -> NDArray[np.int64]:
        """[batch, count]: the class found, and those after it in the list of classes."""
        return (self.targets[:, None] + np.arange(count)) % self.classes

    @cached_property
    def classes(self) -> int:
        return int(self._stored["classes"])

    @cached_property
    def _stored(self) -> dict[str, Any]:
        return dict(np.load(self.folder / f"{self.network}.npz"))

    def _repeated(self, name: str) -> Any:
        array = self._stored[name]
        return np.ascontiguousarray(array[np.arange(self.batch) % len(array)])

    @cached_property
    def module(self) -> Any:
        """The network, a `torch.nn.Module` on the job's device."""
        import torch

        path = self.folder / f"{self.network}.pt"
        return torch.load(path, weights_only=False, map_location=self.device).eval()


def prepare(name: str, folder: Path, several: bool, maps: bool) -> None:
    """Write a network, its explain graphs, the images and the reference's answer to a folder.

    Where onnxplain-kernels is installed, excitation is exported with calls of it too.

    Args:
        several: whether to export excitation for several targets too.
        maps: whether to export Grad-CAM at the network's layer of `LAYERS`.

    Raises:
        OnnxplainError: the network cannot be had or exported.
    """
    import torch

    from onnxplain.bench import networks
    from onnxplain.export.pipeline import export
    from onnxplain.reference import pytorch
    from onnxplain.runtime import load
    from onnxplain.runtime.inputs.batches import as_batch
    from onnxplain.runtime.sessions.onnx_runtime.kernels import library

    job = Job(name, 1, 1, folder)
    pictures = networks.photographs()
    module = networks.network(name, pictures)
    source: Any = name if name in networks.TRAINED else module  # a name brings its preprocessing
    example: dict[str, Any] = (
        {} if name in networks.TRAINED else {"example": torch.zeros(1, 3, *SIZE)}
    )
    export(source, job.graph(), temperature=job.temperature, **example)
    if library() is not None:
        path = job.graph(kernels=True)
        export(source, path, temperature=job.temperature, kernels=True, **example)
    if several:
        path = job.graph(targets=2)
        export(source, path, temperature=job.temperature, multi_target=True, **example)
    if maps:
        export(source, job.graph("gradcam"), method="gradcam", layer=LAYERS[name], **example)
    explainer = load(job.graph(), "cpu")
    images, _ = as_batch(pictures, explainer.metadata.preprocessing)
    targets = explainer(images).targets
    logits, pullback = pytorch.explain(
        copy.deepcopy(module).double(),
        torch.from_numpy(images).double(),
        torch.from_numpy(targets),
        "excitation",
        job.temperature,
    )
    np.savez(
        folder / f"{name}.npz",
        images=images,
        targets=targets,
        pullback=pullback.numpy(),
        classes=logits.shape[1],
    )
    torch.save(module, folder / f"{name}.pt")
