"""Packages that differentiate ONNX files, beside `onnxplain.differentiate`."""
