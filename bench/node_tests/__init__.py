"""ONNX's own node tests, each taken for a test of a vector-Jacobian product."""
