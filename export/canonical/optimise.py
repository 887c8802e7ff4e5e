"""onnxscript's optimiser, in a time that grows as the nodes do.

What `onnxscript.optimizer.optimize_ir` does, with three differences. A rule is tried only at nodes
of the operator in which its pattern ends. Shapes are inferred, for which a node is written as a
message for ONNX, only where they are not known. And some rules are left out:

- Those that make one clip of two, or of a ReLU and a clip. A method has a rule for a ReLU, and none
  for what is left of it: relu(z) with a cap, or with GeM pooling's floor of 1e-6. Nor do they ask
  whether the two ranges meet: of clips to [0, 1] and then to [2, 3], whose value is 2, they make 1.
- Those that take a number of up to 1e-8 for 0, and one beside 1 for 1, and so drop the ε before a
  logarithm or a division. They are here again, exact.
- The one whose pattern ends in two nodes. Its matcher lists the whole graph at every node and tries
  all pairs, and it takes two slices of an odd size for the halves that Split gives, which are
  others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
from onnx_ir.passes import Sequential, common
from onnxscript import rewriter
from onnxscript.optimizer import _constant_folding as folding
from onnxscript.rewriter._pattern_ir import Constant

from onnxplain.export.shapes import is_known, symbols
from onnxplain.export.tensors import number_of

LARGEST = 512 * 512
"""Elements of a folded constant, unless it replaces as many: onnxscript's default."""

_ROUNDS = 2


def optimise(
    model: ir.Model, should_fold: Callable[[ir.Node], bool | None] = lambda node: None
) -> None:
    """Inline functions, fold constants, simplify by onnxscript's rules, and share what is equal."""
    common.InlinePass()(model)
    for _ in range(_ROUNDS):
        if not (fold(model, should_fold) | _simplified(model)):
            break
    Sequential(
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(model)


def fold(model: ir.Model, should_fold: Callable[[ir.Node], bool | None]) -> bool:
    """Fold constants; was there one?"""
    return _Folding(symbols(model.graph), should_fold)(model).modified


class _Folding(folding.FoldConstantsPass):  # type: ignore[misc]
    """onnxscript's, which asks ONNX for no shape that is known."""

    def __init__(
        self, known: frozenset[str], should_fold: Callable[[ir.Node], bool | None]
    ) -> None:
        super().__init__(
            shape_inference=True,
            input_size_limit=folding.DEFAULT_CONSTANT_FOLD_INPUT_SIZE_LIMIT,
            output_size_limit=folding.DEFAULT_CONSTANT_FOLD_OUTPUT_SIZE_LIMIT,
            should_fold=should_fold,
        )
        self._known = known

    def _do_inference(self, node: ir.Node) -> None:
        if not all(is_known(y, self._known) for y in node.outputs):
            super()._do_inference(node)


class _AtItsOperator:
    """A rewrite rule that looks at an operator's name before it looks for its pattern."""

    def __init__(self, rule: Any) -> None:
        self._rule = rule
        self.operator = rule._target_pattern.output_node.op_identifier()  # None: any

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rule, name)

    def try_rewrite(self, model: ir.Model, graph: Any, node: ir.Node, **options: Any) -> Any:
        if self.operator in (None, node.op_identifier()):
            return self._rule.try_rewrite(model, graph, node, **options)
        return None


def _is_used(rule: Any) -> bool:
    pattern = rule._target_pattern
    if not pattern.has_single_output_node or str(rule.name).startswith("FuseSuccessive"):
        return False
    inputs = pattern.output_node.inputs
    return pattern.num_nodes() > 1 or not any(isinstance(x, Constant) for x in inputs)


def _without_effect() -> list[rewriter.pattern.RewriteRule]:
    """x · 1, x / 1, x + 0 and x − 0."""

    def exactly(number: float) -> Callable[..., bool]:
        def condition(_: Any, c: ir.Value, **__: Any) -> bool:
            return c.shape is not None and len(c.shape) == 0 and number_of(c) == number

        return condition

    def nothing(op: Any, x: ir.Value, **_: Any) -> Any:
        return op.Identity(x)

    spelled = [
        (lambda op, x, c: op.Mul(x, c), exactly(1)),
        (lambda op, x, c: op.Div(x, c), exactly(1)),
        (lambda op, x, c: op.Add(x, c), exactly(0)),
        (lambda op, x, c: op.Sub(x, c), exactly(0)),
    ]
    rules = [rewriter.pattern.RewriteRule(form, nothing, exact) for form, exact in spelled]
    return [each for rule in rules for each in rule.commute()]


_RULES = [
    _AtItsOperator(rule)
    for rule in (*_without_effect(), *rewriter._DEFAULT_REWRITE_RULES)
    if _is_used(rule)
]


def _simplified(model: ir.Model) -> bool:
    """Simplify by the rules that may fit; did one?"""
    present = {node.op_identifier() for graph in model.graphs() for node in graph}
    rules = [rule for rule in _RULES if rule.operator is None or rule.operator in present]
    steps = (
        *([rewriter.RewritePass(rewriter.RewriteRuleSet(rules))] if rules else []),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
    )
    return Sequential(*steps)(model).modified
