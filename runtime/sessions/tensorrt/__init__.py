"""TensorRT, over the packages `tensorrt` and `tensorrt_rtx`: building engines and running them."""

from onnxplain.runtime.sessions.tensorrt.build import PRECISIONS, build_engine
from onnxplain.runtime.sessions.tensorrt.engine import SUFFIX, Engine, read_engine
from onnxplain.runtime.sessions.tensorrt.package import PROVIDERS
from onnxplain.runtime.sessions.tensorrt.session import TensorRT, open_engine, open_graph

__all__ = [
    "Engine",
    "PRECISIONS",
    "PROVIDERS",
    "SUFFIX",
    "TensorRT",
    "build_engine",
    "open_engine",
    "open_graph",
    "read_engine",
]
