"""PyTorch modules to ONNX, by `torch.export`."""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx_ir as ir

from onnxplain.errors import SourceError
from onnxplain.export.canonical.opsets import OPSET
from onnxplain.export.canonical.optimise import optimise
from onnxplain.export.sources.spelling import spelled
from onnxplain.extras import TORCH, require
from onnxplain.suggest import nearest

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Traced:
    """A module's graph: one output, the logits, or all that it returns where those are not asked
    for.

    `layers` names the output values of the layers asked for; `fixed_batch` says why the graph takes
    one image at a time, where it does.
    """

    model: ir.Model
    layers: tuple[str, ...] = ()
    fixed_batch: str | None = None


def trace(
    module: torch.nn.Module,
    example: Any,
    name: str,
    layers: Sequence[str] = (),
    fold_norms: bool = True,
    classifier: bool | None = True,
    any_size: bool = False,
) -> Traced:
    """The graph of a module in evaluation mode; the module is left as it is.

    The batch is dynamic. Where the module's own code fixes it, the graph takes one image at a time.

    Args:
        module: [N, C, H, W] → the logits [N, classes], a tensor or something that holds one
            (`logits_of`); or anything that holds tensors (`outputs_of`).
        example: an input, a tensor with the batch first, any N; several, as a tuple or by name. Of
            whole numbers [N, T], T is open too, where the module's code allows it.
        layers: paths of submodules whose output is wanted, as in `module.named_modules()`.
        fold_norms: whether a BatchNorm goes into the convolution before it.
        classifier: whether only its logits are wanted; None if there are some [N, classes].
        any_size: whether height and width of an image are open too.

    Raises:
        SourceError: no such layer; or PyTorch cannot trace the module, or cannot copy it; or not
            with an open size; or one sample of the example alone is traced, and its first axis is
            no batch.
    """
    import_torch()
    whole = Example.of(example)
    given = whole.one(0)
    network = twin(module)
    names = _add_hooks(network, layers, classifier)
    fixed_batch = None
    with quiet(), spelled():
        try:
            model = _open(network, given, fold_norms, any_size)
        except SourceError:
            raise
        except Exception as dynamic:
            try:
                model = _fixed(network, given, fold_norms, any_size)
            except SourceError:
                raise
            except Exception as error:
                raise SourceError(
                    f"PyTorch can't trace {name} with an open height and width "
                    f"({root_cause(error)}); give a number, size=HEIGHT"
                    if any_size
                    else f"PyTorch could not export {name}: {root_cause(error)}"
                ) from error
            _check_first_axis(network, whole)
            fixed_batch = f"PyTorch can't trace {name} with an open one ({root_cause(dynamic)})"
    outputs = model.graph.outputs
    own = len(outputs) - len(layers)
    found = tuple(str(_behind_copies(value).name) for value in outputs[own:])
    outputs[own:] = []  # `del` would leave them marked as outputs
    if names:
        _name_outputs(model.graph, names)
    return Traced(model, found, fixed_batch)


def _check_first_axis(network: torch.nn.Module, example: Example) -> None:
    """Hold an example of which one sample alone is traced to what a batch is.

    Raises:
        SourceError: what the network makes of the last sample depends on the others, as where the
            first axis is time.
    """
    import torch

    if example.samples == 1:
        return
    try:
        with torch.no_grad():
            whole, last = (outputs_of(one.given_to(network)) for one in (example, example.one(-1)))
    except Exception:  # of any kind: the user's own code may take one sample alone
        return
    for name, alone in last.items():
        y = whole.get(name, alone)
        if len(y) in (1, example.samples) and not _is_close(y[-1:], alone):
            shapes = ", ".join(str(list(x.shape)) for x in example.tensors)
            raise SourceError(
                f"the first axis of the example {shapes} is no batch: what the network makes of "
                "the last entry depends on the others. Give an example with the batch first, and a "
                "network that takes it so (recurrent layers with batch_first=True)"
            )


def _is_close(a: torch.Tensor, b: torch.Tensor) -> bool:
    import torch

    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-2, atol=1e-4)


def _name_outputs(graph: ir.Graph, names: Sequence[str]) -> None:
    """Call the outputs what the module calls them, each a value of its own."""
    for i, value in enumerate(list(graph.outputs)):
        copy = ir.node("Identity", [value])
        copy.outputs[0].shape, copy.outputs[0].type = value.shape, value.type
        graph.append(copy)
        graph.outputs[i] = copy.outputs[0]
    for value in [*graph.inputs, *(y for node in graph for y in node.outputs)]:
        if value.name in names:
            value.name = f"{value.name}_inner"
    for value, name in zip(graph.outputs, names, strict=True):
        value.name = name


def _behind_copies(value: ir.Value) -> ir.Value:
    while (node := value.producer()) is not None and node.op_type == "Identity":
        assert node.inputs[0] is not None
        value = node.inputs[0]
    return value


def blank_image(module: torch.nn.Module, channels: int, size: tuple[int, int]) -> torch.Tensor:
    """Zeros [1, C, H, W], of the dtype and on the device of the module's first float tensor."""
    import torch

    tensors = itertools.chain(module.parameters(), module.buffers())
    own = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
    return own.new_zeros(1, channels, *size)


_BATCH, _LENGTH, _HEIGHT, _WIDTH = "batch", "length", "height", "width"

Axes: TypeAlias = Mapping[int, str]
"""Which axes are open, by index, and what their sizes are called."""


@dataclass(frozen=True)
class Example:
    """What a module is called with, a batch: tensors by place, or by name."""

    tensors: Sequence[torch.Tensor]
    names: Sequence[str] = ()

    @classmethod
    def of(cls, example: Any) -> Example:
        """Of what a user gives: a tensor, a sequence of them, or a dictionary.

        Raises:
            SourceError: something else is among it, or batches of several sizes.
        """
        import torch

        names = tuple(map(str, example)) if isinstance(example, Mapping) else ()
        several = isinstance(example, tuple | list | Mapping)
        given = [*example.values()] if names else [*example] if several else [example]
        if not given or not all(isinstance(x, torch.Tensor) for x in given):
            raise SourceError(
                "the example is a torch tensor with the batch first, such as [N, C, H, W], or "
                "several of them: a tuple, or a dictionary by name"
            )
        if len({len(x) for x in given if x.ndim}) > 1:
            shapes = ", ".join(str(list(x.shape)) for x in given)
            raise SourceError(f"the example's tensors are batches of several sizes: {shapes}")
        return cls([x.detach() for x in given], names)

    @property
    def samples(self) -> int:
        return next((len(x) for x in self.tensors if x.ndim), 1)

    def one(self, index: int) -> Example:
        """One of its samples, as a batch."""
        rows = slice(index, index + 1 or None)
        return Example([x[rows] if x.ndim else x for x in self.tensors], self.names)

    def given_to(self, network: torch.nn.Module) -> Any:
        """What a network makes of it."""
        named = dict(zip(self.names, self.tensors, strict=False))
        return network(**named) if named else network(*self.tensors)

    def of_two(self) -> Example:
        """A batch of two, as `torch.export` takes one of one for a constant."""
        twice = [x.repeat(2, *[1] * (x.ndim - 1)) if x.ndim else x for x in self.tensors]
        return Example(twice, self.names)

    def widened(self) -> Example:
        """With images that are not square, as `torch.export` takes equal sizes for one."""
        import torch

        wider = (torch.nn.functional.pad(x, [0, 64]) if x.ndim == 4 else x for x in self.tensors)
        return Example([*wider], self.names)

    def image_axes(self, batch: bool = True) -> list[Axes]:
        """Of each tensor: the batch, if that is open, and an image's height and width."""
        sides: Axes = {2: _HEIGHT, 3: _WIDTH}
        return [
            {**({0: _BATCH} if batch and x.ndim else {}), **(sides if x.ndim == 4 else {})}
            for x in self.tensors
        ]

    def open_axes(self, lengths: bool) -> list[Axes]:
        """Of each tensor: the batch; and where it has whole numbers [N, T], or is as long, T."""
        tokens = (x for x in self.tensors if x.ndim == 2 and not x.is_floating_point())
        length = next((x.shape[1] for x in tokens), None) if lengths else None
        return [
            {0: _BATCH, 1: _LENGTH}
            if x.ndim == 2 and x.shape[1] == length
            else dict.fromkeys(range(min(x.ndim, 1)), _BATCH)
            for x in self.tensors
        ]


def _open(network: torch.nn.Module, example: Example, fold_norms: bool, any_size: bool) -> ir.Model:
    """Its graph with an open batch; with an image's open height and width, where these are wanted,
    or an open length of tokens, where that can be traced."""
    twice = example.of_two()
    if any_size:
        wide = twice.widened()
        return _export(network, wide, wide.image_axes(), fold_norms)
    plain, lengthy = (twice.open_axes(lengths) for lengths in (False, True))
    if lengthy != plain:
        with contextlib.suppress(Exception):  # of any kind: it is the user's own code
            return _export(network, twice, lengthy, fold_norms)
    return _export(network, twice, plain, fold_norms)


def _fixed(
    network: torch.nn.Module, example: Example, fold_norms: bool, any_size: bool
) -> ir.Model:
    """Its graph for one sample; with an image's open height and width, where these are wanted."""
    if not any_size:
        return _export(network, example, (), fold_norms)
    wide = example.widened()
    return _export(network, wide, wide.image_axes(batch=False), fold_norms)


def _export(
    network: torch.nn.Module, example: Example, axes: Sequence[Axes], fold_norms: bool
) -> ir.Model:
    """
    Args:
        axes: those of each tensor that are open; none at all unless given.
    """
    import torch

    # Others may have a least or a greatest value, which torch finds for those that have no name.
    sizes: dict[str, Any] = {_BATCH: torch.export.Dim(_BATCH)}
    sizes |= dict.fromkeys([_LENGTH, _HEIGHT, _WIDTH], torch.export.Dim.DYNAMIC)
    each = [{axis: sizes[name] for axis, name in one.items()} for one in axes]
    by_name = dict(zip(example.names, example.tensors, strict=False))
    shapes = dict(zip(example.names, each, strict=False)) if by_name else tuple(each)
    program = torch.export.export(
        network,
        () if by_name else tuple(example.tensors),
        by_name or None,
        dynamic_shapes=shapes if axes else None,
        strict=False,
    )
    model = program_to_onnx(program, fold_norms)
    if [x.ndim for x in example.tensors] != [4]:  # an image's are named with its size
        _name_sizes(model.graph, axes)
    return model


def _name_sizes(graph: ir.Graph, axes: Sequence[Axes]) -> None:
    """Call the open sizes by their names, where the exporter has made up others."""
    names: dict[Any, ir.SymbolicDim] = {}
    for x, open_ in zip(graph.inputs, axes, strict=False):
        for axis, name in open_.items():
            if x.shape is not None and not isinstance(x.shape[axis], int):
                names[x.shape[axis]] = ir.SymbolicDim(name)
    for value in [*graph.inputs, *(y for node in graph for y in node.outputs)]:
        if value.shape is not None:
            value.shape = ir.Shape([names.get(n, n) for n in value.shape])


def program_to_onnx(program: torch.export.ExportedProgram, fold_norms: bool = True) -> ir.Model:
    import torch

    # The exporter's own optimiser has rules that `optimise` leaves out.
    exported = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, optimize=False, verbose=False
    )
    assert exported is not None
    if fold_norms:
        optimise(exported.model)
    return exported.model


def logits_of(output: Any) -> torch.Tensor:
    """The logits in what a classifier returns.

    A tensor; the `.logits` of a Hugging Face output; the entry `logits`, or the only one, of a
    dictionary; the first of a tuple.

    Raises:
        SourceError: none of these.
    """
    import torch

    found = output
    if isinstance(found, Mapping):
        found = found.get("logits", next(iter(found.values())) if len(found) == 1 else None)
    elif hasattr(found, "logits"):
        found = found.logits
    elif isinstance(found, tuple | list) and found:
        found = found[0]
    if not isinstance(found, torch.Tensor):
        keys = f" with {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
        raise SourceError(
            f"the network returns a {type(output).__name__}{keys}, in which no logits are found; "
            "wrap it in a module that returns the tensor [N, classes]"
        )
    return found


def outputs_of(output: Any, name: str = "", whole: bool = False) -> dict[str, torch.Tensor]:
    """All float tensors in what a network returns, by name; and if `whole` all others.

    A dictionary's by their keys, also those of Hugging Face's outputs; a sequence's by their place,
    `output_0`; one alone is `output`.
    """
    import torch

    if isinstance(output, torch.Tensor):
        return {name or "output": output} if whole or output.is_floating_point() else {}
    found: dict[str, torch.Tensor] = {}
    if isinstance(output, Mapping):
        for key, value in output.items():
            found |= outputs_of(value, f"{name}_{key}" if name else str(key), whole)
    elif isinstance(output, tuple | list):
        for i, value in enumerate(output):
            found |= outputs_of(value, f"{name or 'output'}_{i}", whole)
    return found


def _wanted(output: Any, classifier: bool | None) -> dict[str, torch.Tensor] | None:
    """All of a network's outputs; None where it is to be the logits alone."""
    if classifier:
        return None
    if classifier is None:
        with contextlib.suppress(SourceError):
            if logits_of(output).ndim == 2:
                return None
    if not outputs_of(output):
        import torch

        is_tensor = isinstance(output, torch.Tensor)
        what = (
            str(output.dtype) if is_tensor else f"a {type(output).__name__} without float tensors"
        )
        raise SourceError(f"the network returns {what}, and floats alone can be explained")
    return outputs_of(output, whole=True)


def _add_hooks(
    network: torch.nn.Module, layers: Sequence[str], classifier: bool | None
) -> list[str]:
    """Let a network return its logits alone, or with the outputs of layers' last calls.

    Returns:
        A list that fills with the outputs' names when the network is called, where it is not to
        return its logits.
    """
    modules = dict(network.named_modules())
    last: dict[str, torch.Tensor] = {}
    names: list[str] = []
    for layer in layers:
        if layer not in modules or layer == "":
            raise SourceError(f"the network has no layer {layer!r}; {nearest(layer, modules)}")

        def remember(_: Any, __: Any, output: Any, layer: str = layer) -> None:
            # A copy, because the next layer may work in place.
            last[layer] = logits_of(output).clone()

        modules[layer].register_forward_hook(remember)

    def outputs_and_layers(_: Any, __: Any, output: Any) -> torch.Tensor | tuple[Any, ...]:
        if idle := [layer for layer in layers if layer not in last]:
            raise SourceError(f"the network has a layer {idle[0]!r}, but does not call it")
        wanted = _wanted(output, classifier)
        names[:] = list(wanted or ())
        if wanted is None and not layers:
            return logits_of(output)
        own = [logits_of(output)] if wanted is None else wanted.values()
        return (*own, *(last[layer] for layer in layers))

    network.register_forward_hook(outputs_and_layers)
    return names


def twin(module: torch.nn.Module) -> torch.nn.Module:
    """The module again in evaluation mode, with the same tensors.

    Tracing leaves traces: hooks, caches that a forward pass fills.
    """
    import torch

    tensors = {
        id(value): value
        for part in module.modules()
        for held in (vars(part), part._parameters, part._buffers)
        for value in held.values()
        if isinstance(value, torch.Tensor)
    }
    try:
        return copy.deepcopy(module, dict(tensors)).eval()
    except Exception as error:
        raise SourceError(
            f"{type(module).__name__} can't be copied, and tracing would change it: {error}; "
            "export it with torch.onnx.export and give the .onnx file"
        ) from error


_SHOWN = 200  # characters of PyTorch's reason: some list every size of a graph


_OF_DATA = (
    "what an image shows decides how large something in it is, as how many boxes a detector keeps: "
    "give what comes before as a module of its own, as docs/objectives.md has it for torchvision's "
    "detectors"
)


def root_cause(error: BaseException) -> str:
    """What the error at the root of the chain begins with, without terminal colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    if type(error).__name__ == "GuardOnDataDependentSymNode":
        return _OF_DATA
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]} …"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's deprecation warnings and log lines, and without the graph so far,
    which `torch.export` prints in thousands of lines where it cannot go on."""
    from torch.export import _trace

    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        vars(_trace)["print"] = lambda *_, **__: None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        vars(_trace).pop("print", None)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def import_torch() -> Any:
    """PyTorch.

    Raises:
        MissingPackageError: it is not installed.
    """
    require("torch", "exporting from PyTorch", TORCH)
    import torch

    return torch
