"""Explain a video as it runs."""

from onnxplain.stream.forward import forward_rate
from onnxplain.stream.run import Report, Sink, explain_stream
from onnxplain.stream.source import Frame, Video

__all__ = ["Frame", "Report", "Sink", "Video", "explain_stream", "forward_rate"]
