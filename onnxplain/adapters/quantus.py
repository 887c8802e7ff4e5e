"""An explain graph as Quantus's model and explanation function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.adapters.network import Graph, check_classifier, classes_of, opened


def explain_func(graph: Graph) -> Callable[..., NDArray[Any]]:
    """What Quantus's metrics take as `explain_func`, beside `Network(graph)` as their `model`.

    Args:
        graph: of a classifier, by any method.

    Returns:
        A function of model (which is not asked), inputs [N,C,H,W], normalised, and targets [N],
        that returns the pullbacks, [N,C,H,W] or [N,1,H,W].

    Raises:
        InputError: it explains something else.
    """
    explainer = opened(graph)
    check_classifier(explainer.metadata, explainer.multi_target)

    def explain(model: Any, inputs: Any, targets: Any, **_: Any) -> NDArray[Any]:
        dtype = explainer.backend.signature.dtype
        return explainer(np.asarray(inputs, dtype), classes_of(explainer, targets)).pullback

    return explain
