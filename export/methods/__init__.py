"""The explanation methods: what each does to the ordinary backward pass, one file per method."""

from onnxplain.export.methods.table import METHODS, Method, check_temperature, get_method

__all__ = ["METHODS", "Method", "check_temperature", "get_method"]
