"""Which explanation to trust: what is measured of explain graphs on images.

`evaluate` asks metrics of Quantus's, image by image, and goes one way: `images` finds image files
and their classes; `subject` opens graphs and asks them in pixels of [-1, 1]; `scoring` makes one
score of graph × image × metric, where `metrics` and `protocols` declare what is asked of Quantus,
and `deferred` has the network answer in batches, `randomised` writes the same graph with its
weights shuffled, and `networks` shows both to Quantus; `store` keeps each score as it is made;
`statistics` and `page` are of the table. `drift` asks whether two files still explain alike, for
which Quantus and PyTorch need not be there.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxplain.evaluation.metrics import Metric
    from onnxplain.evaluation.protocols import METRICS, PROTOCOLS, Protocol
    from onnxplain.evaluation.result import Evaluation
    from onnxplain.evaluation.run import evaluate
    from onnxplain.evaluation.statistics import Estimate
    from onnxplain.evaluation.store import Score

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "Estimate",
    "Evaluation",
    "Metric",
    "Protocol",
    "Score",
    "evaluate",
]

_HOMES = {
    "Metric": "metrics",
    **dict.fromkeys(["METRICS", "PROTOCOLS", "Protocol"], "protocols"),
    "Evaluation": "result",
    "evaluate": "run",
    "Estimate": "statistics",
    "Score": "store",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"onnxplain.evaluation.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'onnxplain.evaluation' has no attribute {name!r}")
