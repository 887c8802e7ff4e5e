"""`torch.export` programs as modules whose operations and values a reference can see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from onnxplain.errors import InputError


class Program(nn.Module):
    """A program, run operation by operation; in evaluation mode."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.graph_module = program.module()
        self.graph_module.meta.clear()
        self.watched: fx.Node | None = None
        self.training = False

    def eval(self) -> Program:  # type: ignore[override]
        return self

    def forward(self, images: Tensor) -> Any:
        try:
            return _Interpreter(self).run(images)
        except RuntimeError as error:
            raise InputError(f"the program cannot be run in this precision: {error}") from error

    @contextmanager
    def outputs_of(self, layer: str) -> Iterator[list[Tensor]]:
        """While entered, what the module of that path put out: its last operation's value.

        Raises:
            InputError: there is no such module, or an operation of that name, which the export of a
                program takes it for.
        """
        nodes = list(self.graph_module.graph.nodes)
        inside = [node for node in nodes if layer in _paths(node)]
        if not inside or layer in {node.name.rstrip("_0123456789") for node in nodes}:
            raise InputError(f"the program has no module {layer!r}, or an operation too")
        self.watched, self.seen = inside[-1], list[Tensor]()
        try:
            yield self.seen
        finally:
            self.watched = None


class _Interpreter(fx.Interpreter):
    def __init__(self, program: Program) -> None:
        super().__init__(program.graph_module)
        self.program = program

    def run_node(self, n: fx.Node) -> Any:
        if n.name == "_guards_fn":  # of what sizes and dtypes the program was made for
            return None
        value = super().run_node(n)
        if n is self.program.watched:
            self.program.seen.append(value)
            return value.clone()  # what comes next may work in place
        return value


def _paths(node: fx.Node) -> list[str]:
    return [path for path, _ in node.meta.get("nn_module_stack", {}).values()]


def as_function(func: Any, args: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The torch function that an operator of a program is, and the arguments in its order."""
    if not isinstance(func, torch._ops.OpOverload) or func.namespace != "aten":
        return func, args
    name = func._schema.name.removeprefix("aten::")
    if name == "batch_norm":
        x, weight, bias, mean, variance, *rest = args
        return functional.batch_norm, (x, mean, variance, weight, bias, *rest[:3])
    owners: tuple[Any, ...] = (torch, functional, Tensor)
    return next((getattr(owner, name) for owner in owners if hasattr(owner, name)), func), args
