"""Where ONNX Runtime runs each node of a graph, and what it makes of the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxplain.errors import BackendError
from onnxplain.files import scratch
from onnxplain.runtime.onnx_file import operators
from onnxplain.runtime.sessions.onnx_runtime.options import inference_session, session_options

_PROCESSOR = "CPUExecutionProvider"
_COPIES = ("MemcpyToHost", "MemcpyFromHost")


@dataclass(frozen=True)
class Placement:
    """What ONNX Runtime does with a graph's nodes.

    Attributes:
        nodes: operator → nodes, once the graph is optimised.
        on_processor: operator → nodes that run there; all of them where there is no other provider.
        copies: tensors that are copied from a GPU to the processor or back, and waited for. None
            where only shapes are computed on the processor.
    """

    nodes: Counter[str]
    on_processor: Counter[str]

    @property
    def copies(self) -> int:
        return sum(self.nodes[name] for name in _COPIES)


def placement(path: Path, precision: str, providers: Sequence[Any]) -> Placement:
    """Open a session of an explain graph with ONNX Runtime's `providers`, and ask it.

    Raises:
        BackendError: this ONNX Runtime does not say (one before 1.24); the first of the providers
            does not start; no such file, or not one that it can load.
    """
    with scratch() as folder:
        optimised = folder / "optimised.onnx"
        options = session_options()
        options.optimized_model_filepath = str(optimised)
        for key, value in {
            "session.record_ep_graph_assignment_info": "1",
            "session.optimized_model_external_initializers_file_name": "weights",
        }.items():
            options.add_session_config_entry(key, value)
        session = inference_session(path, precision, options, providers)
        wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
        if wanted not in session.get_providers():  # it falls back without an error
            raise BackendError(f"ONNX Runtime cannot start its {wanted} here")
        if not hasattr(session, "get_provider_graph_assignment_info"):
            raise BackendError(
                "the installed ONNX Runtime does not say where nodes run: pip install -U "
                "onnxruntime-gpu"
            )
        on_processor = Counter(
            node.op_type
            for part in session.get_provider_graph_assignment_info()
            if part.ep_name == _PROCESSOR
            for node in part.get_nodes()
        )
        return Placement(operators(optimised), on_processor)
