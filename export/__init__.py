"""A network in, an explain graph out: `onnxplain.export(source, path, …)`. Imports no runtime."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from onnxplain.contract.request import ExportOptions
from onnxplain.export import vjps as _rows  # noqa: F401  written before any is looked up
from onnxplain.export.autodiff import Rule, pull_back
from onnxplain.export.check import check_vjp
from onnxplain.export.estimators import ESTIMATORS, Estimator, register_estimator
from onnxplain.export.extensions import load_extensions
from onnxplain.export.known import KNOWN, Known, register_network
from onnxplain.export.methods import METHODS, Method, register_method
from onnxplain.export.objectives import (
    OBJECTIVES,
    Fit,
    Input,
    Objective,
    Output,
    Setting,
    hold,
    register_objective,
)
from onnxplain.export.operators import VJPS, Axes, Half, Kind, Linear, register_vjp
from onnxplain.export.parameters import Parameter
from onnxplain.export.pipeline import STAGES, export

__all__ = [
    "Axes",
    "Half",
    "Kind",
    "Linear",
    "KNOWN",
    "METHODS",
    "STAGES",
    "VJPS",
    "ExportOptions",
    "Setting",
    "Output",
    "Objective",
    "OBJECTIVES",
    "ESTIMATORS",
    "Estimator",
    "register_estimator",
    "Input",
    "Known",
    "Fit",
    "Method",
    "Parameter",
    "Rule",
    "check_vjp",
    "export",
    "hold",
    "pull_back",
    "register_method",
    "register_network",
    "register_objective",
    "register_vjp",
]


class CallableModule(ModuleType):
    """`onnxplain.export` is this package and, called, the function that it exists for.

    Type checkers read of this class what the package holds.
    """

    __call__ = staticmethod(export)
    __signature__ = inspect.signature(export)

    if TYPE_CHECKING:
        Axes = Axes
        Half = Half
        Kind = Kind
        Linear = Linear
        KNOWN = KNOWN
        Known = Known
        METHODS = METHODS
        STAGES = STAGES
        VJPS = VJPS
        ExportOptions = ExportOptions
        ESTIMATORS = ESTIMATORS
        Estimator = Estimator
        register_estimator = staticmethod(register_estimator)
        Setting = Setting
        Output = Output
        Objective = Objective
        OBJECTIVES = OBJECTIVES
        Input = Input
        Fit = Fit
        Method = Method
        Parameter = Parameter
        Rule = Rule
        check_vjp = staticmethod(check_vjp)
        export = staticmethod(export)
        hold = staticmethod(hold)
        pull_back = staticmethod(pull_back)
        register_method = staticmethod(register_method)
        register_network = staticmethod(register_network)
        register_objective = staticmethod(register_objective)
        register_vjp = staticmethod(register_vjp)


module: CallableModule
"""This package, for `onnxplain` to declare its `export` by."""

sys.modules[__name__].__class__ = CallableModule
load_extensions()
