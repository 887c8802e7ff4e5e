"""A network in, an explain graph out: `onnxplain.export(source, path, …)`. Imports no runtime."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType

from onnxplain.export import vjps as _rows  # noqa: F401  written before any is looked up
from onnxplain.export.autodiff import Rule, pull_back
from onnxplain.export.methods import METHODS, Method, Parameter, register_method
from onnxplain.export.operators import VJPS, register_vjp
from onnxplain.export.pipeline import export

__all__ = [
    "METHODS",
    "Method",
    "Parameter",
    "Rule",
    "VJPS",
    "export",
    "pull_back",
    "register_method",
    "register_vjp",
]


class _CallableModule(ModuleType):
    """`onnxplain.export` is this package and, called, the function that it exists for."""

    __call__ = staticmethod(export)
    __signature__ = inspect.signature(export)  # for help and editors


sys.modules[__name__].__class__ = _CallableModule
