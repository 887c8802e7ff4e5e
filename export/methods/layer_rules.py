"""The rules of relevance that a layer with weights can be given, by name (`--rule`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import onnx_ir as ir
from onnxscript import OpBuilder

from onnxplain.errors import SourceError
from onnxplain.export.autodiff import Cotangents, Node, Rule
from onnxplain.export.methods.method import Method
from onnxplain.export.methods.weighted import (
    SMALL,
    alpha_beta,
    box,
    flat,
    gamma,
    w_square,
    z_epsilon,
    z_plus,
)
from onnxplain.export.operators import Kind
from onnxplain.export.parameters import Parameter
from onnxplain.export.registry import Registry


def by_stabilizer(rule: Rule) -> Rule:
    """The rule by `stabilizer`, and not by the ε of the ε rule."""

    def apply(
        op: OpBuilder, node: Node, R: ir.Value, *others: None, stabilizer: Any = SMALL
    ) -> Cotangents:
        return rule(op, node, R, *others, epsilon=stabilizer)

    return apply


Z_PLUS = by_stabilizer(partial(z_plus, bias=True))


def epsilon(default: float) -> Parameter:
    return Parameter("epsilon", default, "the stabiliser ε that is added to what is divided by")


EPSILON = Parameter("epsilon", SMALL, "the ε of the ε rule, that of dense layers")
STABILIZER = Parameter("stabilizer", SMALL, "the ε of all rules but the ε rule")
GAMMA = Parameter(
    "gamma", 0.25, "how much more what speaks for a value counts", low=0.0, high=1e6, closed=True
)
BETA = Parameter(
    "beta", 1.0, "of αβ: the share of what speaks against a value, α being 1 + β",
    low=0.0, high=1e6, closed=True,
)  # fmt: skip


@dataclass(frozen=True)
class LayerRule:
    """A rule that a layer with weights can be given.

    Attributes:
        name: what users call it.
        rule: takes the parameters by keyword.
        help: what it is good for, in a line.
        needs: what a network must have for it; empty where any will do.
        source: where it was published.
        aliases: what else it is called; spelling does not count.
    """

    name: str
    rule: Rule
    parameters: tuple[Parameter, ...]
    help: str
    source: str
    needs: str = ""
    aliases: tuple[str, ...] = ()


RULES: Registry[LayerRule] = Registry("rule")
"""Name → rule of a layer with weights."""

for _rule in (
    LayerRule(
        "epsilon", z_epsilon, (EPSILON,),
        "dense layers, at the end", "Bach et al. 2015, PLOS ONE 10(7)",
    ),
    LayerRule(
        "z-plus", Z_PLUS, (STABILIZER,),
        "convolutions: what speaks for the class alone, in coherent areas",
        "Montavon et al. 2017, arXiv 1512.02479",
    ),
    LayerRule(
        "gamma", gamma, (GAMMA, STABILIZER),
        "convolutions: between epsilon (gamma 0) and z-plus (large)",
        "Montavon et al. 2019, LNCS 11700",
    ),
    LayerRule(
        "alpha-beta", alpha_beta, (BETA, STABILIZER),
        "convolutions: what speaks for the class and against it",
        "Bach et al. 2015, PLOS ONE 10(7)",
    ),
    LayerRule(
        "flat", flat, (STABILIZER,),
        "first layers: how much arrives at each place, whatever is there",
        "Lapuschkin et al. 2019, arXiv 1902.10178",
    ),
    LayerRule(
        "w-square", w_square, (STABILIZER,),
        "first layers of values without bounds", "Montavon et al. 2017, arXiv 1512.02479",
    ),
    LayerRule(
        "box", box, (STABILIZER,),
        "first layers: pixels by where they lie between the least and the greatest (z^B)",
        "Montavon et al. 2017, arXiv 1512.02479", "an image",
    ),
):  # fmt: skip
    RULES.register(_rule)

FIRST = "first"
KINDS = {"convolution": Kind.CONVOLUTION, "dense": Kind.MATRIX_PRODUCT}
"""What a rule can be for, besides a layer by its name."""


def with_rules(method: Method, chosen: Mapping[str, str]) -> Method:
    """The method, with other rules for some layers, and the parameters that these take.

    Args:
        chosen: `first`, `convolution`, `dense` or the name of a layer or module → name of a rule.

    Raises:
        SourceError: the method gives no relevances, or there is no such rule.
    """
    if not chosen:
        return method
    if method.relevance is None:
        relevances = "lrp-epsilon or lrp-epsilon-plus"
        raise SourceError(
            f"method {method.name!r} has no rules of layers to choose; take {relevances}, or leave "
            "out the rules"
        )
    found = {where: RULES.named(name) for where, name in chosen.items()}
    rules = {where: one.rule for where, one in found.items()}
    own = {one.name: one for one in method.parameters}
    of_rules = {one.name: one for rule in found.values() for one in rule.parameters}
    return replace(
        method,
        relevance={
            **method.relevance,
            **{kind: rules[where] for where, kind in KINDS.items() if where in rules},
        },
        first=dict.fromkeys(KINDS.values(), rules[FIRST]) if FIRST in rules else method.first,
        named={
            **method.named,
            **{where: rule for where, rule in rules.items() if where not in (FIRST, *KINDS)},
        },
        parameters=tuple((own | of_rules | own).values()),
    )
