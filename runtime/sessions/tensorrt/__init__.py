"""TensorRT, over the packages `tensorrt` and `tensorrt_rtx`: building engines and running them."""

from onnxplain.runtime.sessions.tensorrt.build import build_engine, compile_graph
from onnxplain.runtime.sessions.tensorrt.engine import SUFFIX, Engine, read_engine
from onnxplain.runtime.sessions.tensorrt.options import PRECISIONS
from onnxplain.runtime.sessions.tensorrt.package import PROVIDERS
from onnxplain.runtime.sessions.tensorrt.session import TensorRT, compile_and_open, open_engine

__all__ = [
    "Engine",
    "PRECISIONS",
    "PROVIDERS",
    "SUFFIX",
    "TensorRT",
    "build_engine",
    "compile_and_open",
    "compile_graph",
    "open_engine",
    "read_engine",
]
