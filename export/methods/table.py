"""The table of methods.

A method is a small table of rules laid over `onnxplain.export.vjps`, or a complete one. A rule of
a method with a temperature takes it as the keyword `T`: a number, or the graph's input of that
name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx_ir as ir

from onnxplain.errors import SourceError
from onnxplain.export.autodiff import Rule
from onnxplain.export.methods.baselines import DECONVNET, GUIDED
from onnxplain.export.methods.cams import ActivationMap, grad_cam, hires_cam, layer_cam
from onnxplain.export.methods.excitation import EXCITATION
from onnxplain.export.methods.lrp import (
    EPSILON,
    EPSILON_PLUS,
    LRP_EPSILON,
    LRP_ZPLUS,
    Z_PLUS_EPSILON,
)
from onnxplain.export.methods.semantic import SEMANTIC
from onnxplain.export.vjps import VJPS


@dataclass(frozen=True)
class Method:
    """A backward pass: the operators whose rule differs from the ordinary gradient.

    `temperature` is the default one, `None` for a method without: excitation's in the paper's
    units, semantic's a factor on the paper's. `times_input` multiplies the result by the image;
    `activation_map` makes a map of the cotangent that arrives at a layer, where the sweep stops.
    `relevance` is a complete table instead, with which the sweep carries relevances, and `epsilon`
    its stabiliser.
    """

    name: str
    overrides: Mapping[str, Rule] = field(default_factory=dict)
    temperature: float | None = None
    times_input: bool = False
    activation_map: ActivationMap | None = None
    relevance: Mapping[str, Rule] | None = None
    epsilon: float | None = None

    def rules(self, temperature: float | ir.Value | None) -> dict[str, Rule]:
        """The whole table that the sweep uses, with the temperature in place."""
        if self.relevance is not None:
            return dict(self.relevance)
        overrides = dict(self.overrides)
        if self.temperature is not None:
            overrides = {name: partial(rule, T=temperature) for name, rule in overrides.items()}
        return VJPS | overrides


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("excitation", EXCITATION, temperature=0.3),
        Method("semantic", SEMANTIC, temperature=1.0),
        Method("gradient"),
        Method("guided", GUIDED),
        Method("deconvnet", DECONVNET),
        Method("input-x-gradient", times_input=True),
        Method("gradcam", activation_map=grad_cam),
        Method("layercam", activation_map=layer_cam),
        Method("hirescam", activation_map=hires_cam),
        Method("lrp-zplus", relevance=LRP_ZPLUS, epsilon=Z_PLUS_EPSILON),
        Method("lrp-epsilon", relevance=LRP_EPSILON, epsilon=EPSILON),
        Method("epsilon-plus", relevance=EPSILON_PLUS, epsilon=EPSILON),
    )
}


def get_method(name: str) -> Method:
    """The method of that name.

    Raises:
        SourceError: there is none; the message lists those there are.
    """
    if name not in METHODS:
        raise SourceError(f"no method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def check_temperature(method: Method, temperature: float | None) -> float | None:
    """The temperature to use: the one asked for, or the method's own.

    Raises:
        SourceError: the method has none, or it is not a positive number.
    """
    if temperature is None:
        return method.temperature
    if method.temperature is None:
        raise SourceError(f"method {method.name!r} has no temperature; leave it out")
    if not (np.isfinite(temperature) and temperature > 0):
        raise SourceError(f"the temperature must be a positive number, not {temperature}")
    return float(temperature)
